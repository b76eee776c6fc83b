"""What goes into a bundle, piece by piece. All blocking; each raises what its environment makes it raise."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from daemon.diagnostics.checks.table import Site, machine_checks
from daemon.diagnostics.selftest import report, run_check
from daemon.store.paths import StateLayout
from daemon.store.reader import CatalogueReader

FILE_TAIL_BYTES = 5_000_000
COMMAND_TIMEOUT_S = 10.0
MAX_LISTED_FILES = 2000
MAX_LISTED_ROWS = 200

KERNEL_JOURNAL = ["journalctl", "-k", "-n", "2000", "-o", "short-iso-precise", "--no-pager"]
USB_FILES = (
    "idVendor", "idProduct", "manufacturer", "product", "serial", "speed", "version", "busnum", "devnum",
    "bDeviceClass", "bMaxPower", "authorized", "urbnum", "power/runtime_status",
)  # fmt: skip


def versions() -> dict[str, Any]:
    """Versions of the software, its packages and the system."""
    installed = {dist.metadata["Name"]: dist.version for dist in metadata.distributions()}
    return {
        "photometryd": installed.get("photometryd"),
        "python": sys.version,
        "numba": installed.get("numba"),
        "sqlite": sqlite3.sqlite_version,
        "kernel": platform.release(),
        "machine": platform.machine(),
        "os": _os_release(),
        "packages": dict(sorted(installed.items(), key=lambda item: item[0].lower())),
    }


def _os_release() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.platform()


def selftest(site: Site) -> dict[str, Any]:
    """The checks that need no running daemon."""
    return report([run_check(check) for check in machine_checks(site)])


def catalogue(state_dir: Path) -> dict[str, Any]:
    """The newest runs, faults and control actions that the catalogue knows. Raises `StoreError`."""
    path = StateLayout(state_dir).catalogue
    if not path.exists():
        raise FileNotFoundError(f"there is no {path}")
    with CatalogueReader(path) as reader:
        return {
            "runs": [asdict(run) for run in reader.runs(MAX_LISTED_ROWS)],
            "faults": reader.faults(MAX_LISTED_ROWS),
            "audit": reader.audit(MAX_LISTED_ROWS),
        }


def machine(state_dir: Path) -> dict[str, Any]:
    """Memory, load, disk and clocks."""
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    existing = next(path for path in (state_dir, *state_dir.parents) if path.exists())
    disk = shutil.disk_usage(existing)
    return {
        "cpus": os.cpu_count(),
        "load_average": os.getloadavg(),
        "memory_total_bytes": memory.total,
        "memory_available_bytes": memory.available,
        "swap_used_bytes": swap.used,
        "state_dir_total_bytes": disk.total,
        "state_dir_free_bytes": disk.free,
        "uptime_s": time.clock_gettime(time.CLOCK_BOOTTIME),
        "monotonic_s": time.monotonic(),
        "utc": datetime.now(UTC).isoformat(),
    }


def listing(state_dir: Path) -> str:
    """Size, time of change, mode and name of every file, the first `MAX_LISTED_FILES` of them."""
    lines = [f"{state_dir}"]
    for path in _walk(state_dir):
        try:
            state = path.lstat()
        except FileNotFoundError:  # removed meanwhile
            continue
        changed = datetime.fromtimestamp(state.st_mtime, UTC).isoformat(timespec="seconds")
        lines.append(f"{state.st_size:>14} {changed} {oct(state.st_mode & 0o7777)} {path.relative_to(state_dir)}")
        if len(lines) > MAX_LISTED_FILES:
            lines.append("... and more")
            break
    return "\n".join(lines) + "\n"


def _walk(directory: Path) -> Iterator[Path]:
    for path in sorted(directory.iterdir()):
        yield path
        if path.is_dir() and not path.is_symlink() and os.access(path, os.R_OK | os.X_OK):
            yield from _walk(path)


def usb_devices() -> str:
    """One line a USB device: its place in the tree and what it says of itself."""
    lines = []
    for device in sorted(Path("/sys/bus/usb/devices").iterdir()):
        values = {
            name: (device / name).read_text(errors="replace").strip() for name in USB_FILES if (device / name).exists()
        }
        if "idVendor" in values:
            lines.append(f"{device.name} {json.dumps(values)}")
    return "\n".join(lines) + "\n"


def tail(path: Path) -> str:
    """The last `FILE_TAIL_BYTES` of a file as text."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - FILE_TAIL_BYTES))
        return file.read(FILE_TAIL_BYTES).decode("utf-8", "replace")


def output(command: list[str]) -> str:
    """What a command prints, within `COMMAND_TIMEOUT_S`."""
    if shutil.which(command[0]) is None:
        raise FileNotFoundError(f"there is no {command[0]} here")
    done = subprocess.run(
        command, capture_output=True, timeout=COMMAND_TIMEOUT_S, check=False, stdin=subprocess.DEVNULL, errors="replace"
    )
    if done.returncode != 0 and not done.stdout:
        raise ValueError(f"{command[0]} ended with {done.returncode}: {done.stderr.strip()[:500]}")
    return done.stdout[-FILE_TAIL_BYTES:]


def kernel_log(command: list[str]) -> str:
    """Kernel messages by `command`; where it may not ask the kernel, as in the hardened unit, the journal's copy."""
    try:
        return output(command)
    except (OSError, ValueError) as error:
        text = _or_nothing(KERNEL_JOURNAL)
        if not text.strip() or text.startswith("-- No entries"):
            raise
        return f"{text}(from the journal: {error})\n"


def _or_nothing(command: list[str]) -> str:
    try:
        return output(command)
    except (OSError, ValueError, subprocess.SubprocessError):
        return ""


def json_lines(path: Path) -> list[Any]:
    """The rows of a JSON-lines file; lines that do not parse as ``{"damaged": text}``."""
    rows = []
    for line in tail(path).splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            rows.append({"damaged": line[:1000]})
    return rows
