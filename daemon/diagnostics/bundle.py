"""The diagnostics bundle: one tar.gz with everything a support engineer asks for. Works with the daemon dead.

Asked of the daemon or made beside a dead one, it has the same list of files; what only a living daemon knows is then
listed as missing. Every file is in ``manifest.json`` with its size, its SHA-256 and why it is there. Secrets are out.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from daemon.diagnostics import evidence
from daemon.diagnostics.archive import Archive
from daemon.diagnostics.checks.table import Site
from daemon.diagnostics.faults import faults_file
from daemon.diagnostics.logs import log_files
from daemon.diagnostics.redact import secrets_in
from daemon.diagnostics.snapshot import snapshot_files

ROOT = "photometryd-bundle"
MAX_BYTES = 50_000_000  # of all files together; logs shrink tenfold, snapshots are compressed already
JOURNAL = ["journalctl", "-u", "photometryd", "-n", "5000", "-o", "short-iso-precise", "--no-pager"]
DMESG = ["dmesg", "--ctime"]
LIVE = {
    "status.json": "what the daemon says of itself",
    "metrics.txt": "counters and figures of the running daemon",
    "selftest-daemon.json": "the daemon's own last self-test, devices and store included",
}
"""What only a living daemon knows."""


def write_bundle(
    out: Path,
    *,
    config_path: Path | None,
    state_dir: Path,
    live: Mapping[str, Any] | None = None,
    site: Site | None = None,
) -> None:
    """Write the bundle to `out`, whole or not at all; readable by its owner only. Blocking, up to half a minute.

    `live` has values for `LIVE` as far as the daemon gave them, `site` what checks may know of the configuration.
    Raises `StoreError` when `out` cannot be written.
    """
    _collect(config_path, state_dir, live or {}, site or Site(state_dir)).write(out, ROOT)


def _collect(config_path: Path | None, state_dir: Path, live: Mapping[str, Any], site: Site) -> Archive:
    bundle = Archive(configured_secrets(config_path), MAX_BYTES)
    for name, why in LIVE.items():
        bundle.add(name, why, partial(_present, live.get(name), "the daemon did not answer, or had none yet"))
    bundle.add("config.toml", "the settings, without secrets", lambda: evidence.tail(_settings_file(config_path)))
    bundle.add("versions.json", "software and system", evidence.versions)
    bundle.add(
        "faults.jsonl", "recent faults with counts and remedies", lambda: evidence.json_lines(faults_file(state_dir))
    )
    bundle.add("selftest.json", "checks of this machine", lambda: evidence.selftest(site))
    bundle.add("machine.json", "memory, load, disk, clocks", lambda: evidence.machine(state_dir))
    bundle.add("state-directory.txt", "which files there are, and their sizes", lambda: evidence.listing(state_dir))
    bundle.add("store.json", "runs, stored faults and audit of the catalogue", lambda: evidence.catalogue(state_dir))
    bundle.add("usb.txt", "USB devices as the kernel sees them", evidence.usb_devices)
    bundle.add("journal.txt", "what systemd recorded of the service", lambda: evidence.output(JOURNAL))
    bundle.add("dmesg.txt", "kernel messages: USB resets, disk faults, memory", lambda: evidence.kernel_log(DMESG))
    for path in snapshot_files(state_dir):
        bundle.add(f"snapshots/{path.name}", "taken at the first fault of its kind", path.read_bytes)
    for number, path in enumerate(log_files(state_dir)):
        if number == 0 or path.exists():  # rotated ones need not be there
            bundle.add(f"logs/{path.name}", "the daemon's own log", partial(evidence.json_lines, path))
    return bundle


def configured_secrets(config_path: Path | None) -> list[str]:
    """The values of the settings file that sound secret; none when it cannot be read. Blocking."""
    try:
        return secrets_in(evidence.tail(_settings_file(config_path)))
    except (OSError, ValueError):
        return []


def _settings_file(config_path: Path | None) -> Path:
    return Path(_present(config_path, "no settings file is in use"))


def _present(value: Any, otherwise: str) -> Any:
    if value is None:
        raise ValueError(otherwise)
    return value
