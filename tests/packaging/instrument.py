"""A machine with the service on it: what both the package's tests and the units' tests ask of it."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.packaging.container import Container, ContainerError, make_base

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache" / "package"
READY_S = 300.0
WATCHDOG_S = 240.0  # until it is noticed, killed and started again
UNIT = "photometryd.service"


def wait_for(what: Callable[[], Any], within_s: float, name: str) -> Any:
    """The first true value of `what`, which may fail meanwhile."""
    deadline_s, last = time.monotonic() + within_s, ""
    while time.monotonic() < deadline_s:
        try:
            if found := what():
                return found
        except (ContainerError, ValueError) as error:
            last = str(error)
        time.sleep(0.2)
    raise AssertionError(f"{name} not within {within_s:g} s. {last}")


def clean_debian() -> Path:
    """A Debian 12 with nothing but systemd and what the package says it depends on; made once."""
    control = (ROOT / "packaging/debian/control").read_text()
    depends = re.findall(r"^Depends: (.*)$", control, re.MULTILINE)[0].split(", ")
    packages = sorted(name for name in depends if not name.startswith("$"))
    base = CACHE / f"debian12-{'-'.join(packages)}.tar"
    if not base.exists():
        make_base(base, packages)
    return base


class Instrument(Container):
    """A machine, and how one asks the service in it."""

    def show(self, name: str) -> str:
        """A property of the unit."""
        return self.run("systemctl", "show", "--value", f"--property={name}", UNIT).strip()

    def ctl(self, *arguments: str) -> str:
        """What the operator's tool prints."""
        return self.run("photometryctl", "--socket", "/run/photometryd/api.sock", *arguments)

    def status(self) -> dict[str, Any]:
        """Of the API."""
        told: dict[str, Any] = json.loads(self.ctl("status", "--json"))
        return told

    def await_ready(self) -> None:
        """Active, which is READY=1 with Type=notify, and answering."""
        wait_for(lambda: self.show("ActiveState") == "active", READY_S, "READY")
        wait_for(lambda: self.status()["state"] == "ready", READY_S, "a ready status")

    def current(self) -> str:
        """The version that the next start runs."""
        return Path(os.readlink(self.root / "opt/photometryd/current")).name

    def check_sandbox(self) -> None:
        """What the unit promises holds for the process that runs."""
        pid = self.show("MainPID")
        assert self.show("ProtectSystem") == "strict"
        lines = self.run("cat", f"/proc/{pid}/status").splitlines()
        facts = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        assert (facts["NoNewPrivs"], facts["Seccomp"]) == ("1", "2")
        assert (int(facts["CapEff"], 16), int(facts["CapBnd"], 16)) == (0, 0)
        inside = ("nsenter", f"--target={pid}", "--mount", "touch")  # even root's hand is stopped by the mounts
        for place in ("/usr/x", "/etc/photometryd/x", "/opt/photometryd/x", "/var/log/x"):
            assert "Read-only file system" in self.run(*inside, place, fails=True)
        self.run(*inside, "/var/lib/photometryd/x")
        self.run("rm", "/var/lib/photometryd/x")

    def check_watchdog(self) -> None:
        """A daemon that hangs is killed and started again."""
        pid, restarts = self.show("MainPID"), int(self.show("NRestarts"))
        self.run("sh", "-c", f"kill -STOP {pid}")
        wait_for(lambda: int(self.show("NRestarts")) > restarts, WATCHDOG_S, "the watchdog's restart")
        assert "Watchdog timeout" in self.run("journalctl", f"--unit={UNIT}", "--no-pager")
        self.await_ready()
        assert self.show("MainPID") != pid
