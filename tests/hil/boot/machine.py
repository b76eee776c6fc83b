"""A guest with the installed product: beside what those for drivers have, a watchdog and a network cable."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.hil.vm.machine import BOOT_S, GuestError, Machine

READY_S = 900.0
"""From the agent's first word to READY=1: an emulated processor imports numpy and numba for two processes."""
UNIT = "photometryd.service"
STATE = "/var/lib/photometryd"
PYTHON = "/opt/photometryd/current/bin/python"
STORE_CHECKS = Path(__file__).with_name("store_checks.py")
LOOK_S = 1.0
ASK = """
import socket
with socket.socket(socket.AF_UNIX) as api:
    api.settimeout(120)
    api.connect("/run/photometryd/api.sock")
    authorization = f"Authorization: Bearer {token}\\r\\n" if token else ""
    api.sendall(f"GET /api/v1/status HTTP/1.0\\r\\nHost: guest\\r\\n{authorization}\\r\\n".encode())
    answer = b"".join(iter(lambda: api.recv(65536), b""))
head, _, body = answer.partition(b"\\r\\n\\r\\n")
assert b" 200 " in head.splitlines()[0], answer
print(body.decode())
"""
"""For the status: the operator's tool takes an emulated processor five seconds to start."""


def is_measuring(status: dict[str, Any]) -> bool:
    """Whether frames of a run have reached the store."""
    return bool(status["measuring"] and status["run"]["frames"] > 0)


class InstalledMachine(Machine):
    """`power_on` boots from the disk as it is; `power_cut` ends it between two instructions and keeps the disk."""

    memory_mb = 2048
    disk_cache = "writeback"  # a flush is one, so what was synced survives the cut, as on a disk that does not lie

    def __init__(self, image: Path, sockets: Path, run: str = "run") -> None:
        super().__init__(image, sockets, run)
        self.token = ""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        """Of this machine, led through the guest's network cable to the API's."""

    def more_devices(self) -> list[str]:
        """A watchdog of Intel's, and a network card with a cable in it."""
        cable = f"user,id=cable,restrict=on,hostfwd=tcp:127.0.0.1:{self.port}-:8470"
        network = ["-netdev", cable, "-device", "virtio-net-pci,netdev=cable,id=card"]
        return ["-device", "i6300esb", "-action", "watchdog=reset", *network]

    def settle_down(self) -> None:
        """Measuring, as most cases want it. A version's proof takes longer, and none depends on it."""
        self.await_ready()
        self.await_status(is_measuring)

    # -- power ------------------------------------------------------------

    def renew_disk(self, files: Path) -> None:
        """The next start finds it as the installation left it."""
        self._make_files(files)
        self._new_disk()

    def power_on(self) -> None:
        """A cold boot, up to a shell."""
        self._start()
        self.await_agent()

    def power_cut(self) -> None:
        """Kill it. What the guest had not written to its disk is gone."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None
        self.stop()

    def boot_id(self) -> str:
        """Another one after each boot."""
        return self.sh("cat /proc/sys/kernel/random/boot_id")

    def await_another_boot(self, than: str, within_s: float = BOOT_S) -> None:
        """Until a boot that is not `than` has a shell; meanwhile nobody may answer."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            try:
                self.ask("guest-ping", within_s=5.0)
                if self.boot_id() != than:
                    return
            except (OSError, ValueError, GuestError):
                self._require_running()
            time.sleep(LOOK_S)
        raise GuestError(f"no other boot within {within_s:g} s")

    def network_cable(self, plugged: bool) -> None:
        """Pull it out of the card, or put it back."""
        told = self._monitor(f"set_link card {'on' if plugged else 'off'}")
        if told.strip():
            raise GuestError(told)

    # -- the service ------------------------------------------------------------

    def show(self, name: str) -> str:
        """A property of the unit."""
        return self.sh(f"systemctl show --value --property={name} {UNIT}").strip()

    def status(self) -> dict[str, Any]:
        """Of the API."""
        told: dict[str, Any] = json.loads(self.python(f"token = {self.token!r}\n{ASK}"))
        return told

    def await_ready(self, within_s: float = READY_S) -> None:
        """Active, which is READY=1 with Type=notify."""
        deadline = time.monotonic() + within_s
        while (state := self.show("ActiveState")) != "active":
            if time.monotonic() > deadline:
                raise GuestError(f"the service is {state}, not READY: {self.log()}")
            time.sleep(LOOK_S)

    def await_status(self, what: Callable[[dict[str, Any]], Any], within_s: float = READY_S) -> dict[str, Any]:
        """The first status for which `what` holds."""
        deadline, last = time.monotonic() + within_s, ""
        while time.monotonic() < deadline:
            try:
                told = self.status()
            except GuestError as error:
                last = str(error)
            else:
                if what(told):
                    return told
                last = json.dumps(told)
            time.sleep(LOOK_S)
        raise GuestError(f"not within {within_s:g} s; the last status: {last[-4000:]}; {self.log()}")

    def log(self) -> str:
        """What the service logged last."""
        return self.sh(f"journalctl --unit={UNIT} --boot --no-pager --lines=60 --output=cat || true")

    def settle(self, settings: str) -> None:
        """Other settings, in force after a restart, which this makes."""
        self.sh(f"cat >/etc/photometryd/photometryd.toml <<'END'\n{settings}\nEND")
        self.sh(f"systemctl restart {UNIT}", READY_S)
        self.await_ready()

    def check_store(self, *expected: str) -> list[dict[str, Any]]:
        """What `store_checks.py` says of each run, by the installed version. Raises GuestError with what is wrong,
        which the `expected` reasons of runs that ended are not.
        """
        told = self.start(PYTHON, "-c", STORE_CHECKS.read_text(), STATE, *expected).result(BOOT_S)
        checked: list[dict[str, Any]] = json.loads(told.splitlines()[-1])
        return checked
