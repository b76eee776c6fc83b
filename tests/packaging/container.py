"""A clean Debian 12 under a real systemd: `systemd-nspawn --boot`, native in speed, no USB and no network."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

TOOLS = ("systemd-nspawn", "mmdebstrap", "nsenter", "unshare", "dpkg-deb", "tar")
BOOT_S = 120.0  # half a second on an idle machine
COMMAND_S = 60.0
DOWNLOAD_S = 600.0  # 200 MB; half a minute from a near mirror
LOOK_S = 0.1


def reason_against() -> str | None:
    """Why there can be no container here; None when there can."""
    if os.geteuid() != 0:
        return "a container takes root"
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        packages = "systemd-container mmdebstrap util-linux dpkg tar"
        return f"a container needs {', '.join(missing)}: on Debian, as root, apt-get install {packages}"
    spaces = ["unshare", "--mount", "--uts", "--ipc", "--net", "--pid", "--fork", "true"]
    if subprocess.run(spaces, capture_output=True, timeout=COMMAND_S, check=False).returncode != 0:
        return "root may not make name spaces here"
    return None


def make_base(tar: Path, packages: list[str]) -> None:
    """A minimal Debian 12 with systemd and `packages`, kept in `tar`: only this takes a network, and minutes."""
    tar.parent.mkdir(parents=True, exist_ok=True)
    new = tar.with_suffix(".new.tar")
    include = ",".join(["systemd-sysv", *packages])
    options = ["--variant=minbase", f"--include={include}", '--aptopt=APT::Install-Recommends "false"']
    subprocess.run(["mmdebstrap", "--quiet", *options, "bookworm", str(new)], check=True, timeout=DOWNLOAD_S)
    new.rename(tar)


class ContainerError(Exception):
    """It does not boot, or a command in it failed."""


class Container:
    """One machine: unpacked from a base, booted, ordered about, switched off.

    It sees the directories `seen` of this machine, at their places, and cannot write there.
    """

    def __init__(self, root: Path, seen: tuple[Path, ...] = ()) -> None:
        self.root = root
        self._seen = seen
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._leader = 0

    def unpack(self, base: Path) -> None:
        """The machine as it is before anything is installed."""
        self.root.mkdir(parents=True)
        subprocess.run(["tar", "-C", str(self.root), "--numeric-owner", "-xpf", str(base)], check=True, timeout=600)
        policy = self.root / "usr/sbin/policy-rc.d"  # mmdebstrap may leave one that forbids starting services
        policy.unlink(missing_ok=True)

    def boot(self) -> None:
        """Up to systemd's `running`. Raises ContainerError."""
        command = ["systemd-nspawn", "--boot", "--quiet", "--register=no", "--keep-unit", "--private-network"]
        command += [f"--directory={self.root}", *(f"--bind-ro={place}" for place in self._seen)]
        environ = {**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}  # else a host's mixed hierarchy shows through
        with (self.root.parent / "console.log").open("wb") as console:
            self._nspawn = subprocess.Popen(
                command, env=environ, stdin=subprocess.DEVNULL, stdout=console, stderr=subprocess.STDOUT
            )
        deadline_s = time.monotonic() + BOOT_S
        while time.monotonic() < deadline_s:
            self._leader = self._find_leader()
            state = self._state() if self._leader else ""
            if state == "running":
                return
            if state == "degraded":
                raise ContainerError(self.run("systemctl", "--failed", "--no-legend"))
            time.sleep(LOOK_S)
        raise ContainerError((self.root.parent / "console.log").read_text(errors="replace"))

    def _find_leader(self) -> int:
        """Its process 1, seen from outside; a child of another name is there for a moment only."""
        assert self._nspawn is not None
        if self._nspawn.poll() is not None:
            raise ContainerError((self.root.parent / "console.log").read_text(errors="replace"))
        for child in psutil.Process(self._nspawn.pid).children():
            if child.name() == "systemd":
                return child.pid
        return 0

    def _state(self) -> str:
        return self._enter(["systemctl", "is-system-running"], COMMAND_S).stdout.strip()

    def run(self, *command: str, timeout_s: float = COMMAND_S, fails: bool = False) -> str:
        """Run it in there; returns what it printed. Raises ContainerError on another exit code than expected."""
        done = self._enter(list(command), timeout_s)
        if (done.returncode != 0) is not fails:
            raise ContainerError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    def _enter(self, command: list[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
        enter = ["nsenter", "--target", str(self._leader), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup"]
        environ = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
        return subprocess.run(
            [*enter, *command], env=environ, capture_output=True, text=True, timeout=timeout_s, check=False
        )

    def off(self) -> None:
        """Pull the plug. Idempotent."""
        if self._nspawn is None:
            return
        if self._nspawn.poll() is None:
            for process in psutil.Process(self._nspawn.pid).children():
                process.send_signal(signal.SIGKILL)  # process 1: all in the container die with it
            try:
                self._nspawn.wait(BOOT_S)
            except subprocess.TimeoutExpired:
                self._nspawn.kill()
                self._nspawn.wait()
        self._nspawn = None

    def scrap(self) -> None:
        """Off, and off the disk."""
        self.off()
        subprocess.run(["rm", "-rf", "--one-file-system", str(self.root)], check=True, timeout=600)


@contextmanager
def booted(container: Container) -> Iterator[Container]:
    """Switched off at the end, whatever happens."""
    try:
        container.boot()
        yield container
    finally:
        container.off()
