"""A guest: QEMU on the image of `tests/hil/vm/image`, ordered by its agent, with emulated devices in its ports."""

from __future__ import annotations

import base64
import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hw.drivers import build_driver
from hw.twin.usb import MODELS
from hw.twin.usb.usbredir import Cable

TOOLS = ("qemu-system-x86_64", "qemu-img", "mke2fs")
PORTS = ("port1", "port2")
BOOT_S = 600.0  # an emulated processor on a busy machine
COMMAND_S = 180.0
LOOK_S = 0.1
SNAPSHOT = "booted"
FILES_SIZE = "600M"  # always the same: a saved guest knows how large its disks are
AGENT = "org.qemu.guest_agent.0"
PROCESSOR = "max,pcid=off,la57=off,avx=off,avx2=off,fma=off,f16c=off"
"""Without AVX: as QEMU 7.2 emulates it, numpy meets a general protection fault now and then."""
KERNEL_LINE = (
    "console=ttyS0 root=/dev/vda rw quiet mitigations=off nokaslr audit=0 random.trust_cpu=on systemd.show_status=0"
)


def reason_against() -> str | None:
    """Why there can be no guest here; None when there can."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        packages = "qemu-system-x86 qemu-utils e2fsprogs"
        return f"a guest needs {', '.join(missing)}: on Debian, as root, apt-get install {packages}"
    return None


class GuestError(Exception):
    """The guest does not do what it was told."""


class Machine:
    """One guest at a time: `prepare` once, then a `resume` for each case.

    `image` is what `tests/hil/vm/image` made, its folder `run` has disks, one with the saved guest.
    `sockets` has a short path.
    """

    memory_mb = 1024
    disk_cache = "unsafe"
    """QEMU's word. This one is the quickest, and a killed QEMU leaves a disk that holds anything."""

    def __init__(self, image: Path, sockets: Path, run: str = "run") -> None:
        self._image, self._sockets = image, sockets
        self._run = image / run
        self._process: subprocess.Popen[bytes] | None = None
        self._cables: dict[str, Cable] = {}
        self._ports: dict[str, str] = {}

    # -- its life ------------------------------------------------------------

    def prepare(self, files: Path) -> None:
        """Make disks, the second one of `files`; boot and save, unless this image was saved by this QEMU before."""
        self._make_files(files)
        saved, key = self._path("saved"), self._key()
        if saved.exists() and saved.read_text() == key:
            return
        saved.unlink(missing_ok=True)
        self._new_disk()
        try:
            self._start()
            self.await_agent()
            self.settle_down()
            told = self._monitor("savevm " + SNAPSHOT)
            if told.strip():
                raise GuestError(told)
        finally:
            self.stop()
        saved.write_text(key)

    def _make_files(self, files: Path) -> None:
        self._run.mkdir(exist_ok=True)
        self._path("files.raw").unlink(missing_ok=True)
        made = ["mke2fs", "-q", "-F", "-t", "ext4", "-d", str(files), str(self._path("files.raw")), FILES_SIZE]
        subprocess.run(made, check=True)

    def settle_down(self) -> None:
        """Wait for what a case may expect of a guest, before it is saved: all units."""
        self.sh("systemctl is-system-running --wait || true", BOOT_S)

    def _new_disk(self) -> None:
        disk = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(self._image / "disk.raw")]
        subprocess.run([*disk, str(self._path("disk.qcow2"))], check=True)

    def _key(self) -> str:
        """What a saved guest goes with."""
        version = subprocess.run([TOOLS[0], "--version"], capture_output=True, text=True, check=True).stdout
        ages = [str((self._image / name).stat().st_mtime_ns) for name in ("disk.raw", "kernel", "initrd")]
        command = re.sub(r"127\.0\.0\.1:\d+", "", " ".join(self._command()).replace(str(self._sockets), ""))
        return "\n".join([version, *ages, command])

    @contextmanager
    def resume(self) -> Iterator[None]:
        """A guest as it was saved; at the end its devices are unplugged and it is stopped."""
        try:
            self._start("-loadvm", SNAPSHOT)
            self.await_agent()
            yield
        finally:
            self.stop()

    def stop(self) -> None:
        """Unplug all and end QEMU at once. Idempotent."""
        for cable in self._cables.values():
            cable.close()
        self._cables.clear()
        self._ports.clear()
        if self._process is not None:
            self._process.terminate()  # it closes its disks
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def _start(self, *more: str) -> None:
        for name in ("monitor", "agent", *PORTS):
            self._socket(name).unlink(missing_ok=True)
        with self._path("qemu.log").open("wb") as log:
            self._process = subprocess.Popen(
                [*self._command(), *more], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )

    def _command(self) -> list[str]:
        server = "server=on,wait=off"
        memory = str(self.memory_mb)
        command = ["qemu-system-x86_64", "-M", "q35,hpet=off,smm=off", "-accel", "tcg,thread=multi,tb-size=512"]
        command += ["-cpu", PROCESSOR, "-m", memory, "-smp", "2", "-display", "none"]
        command += ["-nodefaults", "-no-user-config", "-serial", f"file:{self._path('console.log')}"]
        command += ["-kernel", str(self._image / "kernel"), "-initrd", str(self._image / "initrd")]
        command += ["-append", KERNEL_LINE, "-device", "virtio-rng-pci"]
        command += ["-drive", f"file={self._path('disk.qcow2')},if=virtio,format=qcow2,cache={self.disk_cache}"]
        command += ["-drive", f"file={self._path('files.raw')},if=virtio,format=raw,readonly=on"]
        command += [
            "-device",
            "virtio-serial-pci",
            "-chardev",
            f"socket,id=agent,path={self._socket('agent')},{server}",
        ]
        command += ["-device", f"virtserialport,chardev=agent,name={AGENT}"]
        command += ["-qmp", f"unix:{self._socket('monitor')},{server}", "-device", "qemu-xhci,id=xhci,p2=8,p3=8"]
        for port in PORTS:
            command += ["-chardev", f"socket,id={port},path={self._socket(port)},{server}"]
            command += ["-device", f"usb-redir,chardev={port},id={port},bus=xhci.0"]
        return [*command, *self.more_devices()]

    def more_devices(self) -> list[str]:
        """QEMU's options for what this kind of guest has beside."""
        return []

    def _path(self, name: str) -> Path:
        return self._run / name

    def _socket(self, name: str) -> Path:
        return self._sockets / name

    # -- orders ------------------------------------------------------------

    def sh(self, script: str, within_s: float = COMMAND_S) -> str:
        """What a shell in the guest, as root, says on both channels. Raises `GuestError` unless it ends with 0."""
        return self.start("/bin/sh", "-c", script).result(within_s)

    def python(self, code: str, within_s: float = COMMAND_S) -> str:
        """As `sh`, of Debian's Python."""
        return self.start("/usr/bin/python3", "-c", code).result(within_s)

    def start(self, *command: str) -> Command:
        """Run a program there and go on."""
        told = self.ask("guest-exec", path=command[0], arg=list(command[1:]), **{"capture-output": True})
        return Command(self, told["pid"], command)

    def eventually(self, script: str, within_s: float = COMMAND_S) -> str:
        """Try a shell script until it ends with 0. Raises `GuestError`."""
        deadline = time.monotonic() + within_s
        while True:
            try:
                return self.sh(script)
            except GuestError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(LOOK_S)

    def ask(self, what: str, within_s: float = 60.0, **arguments: Any) -> Any:
        """An order to the guest's agent."""
        number = time.monotonic_ns() & 0x7FFFFFFF
        with self._connected("agent", within_s) as lines:
            for order, given in (("guest-sync", {"id": number}), (what, arguments)):
                lines.write(json.dumps({"execute": order, "arguments": given}) + "\n")
                lines.flush()
                answer = json.loads(lines.readline() or '{"error": "the agent is gone"}')
                while order == "guest-sync" and answer.get("return") != number:  # to an order that was given up
                    answer = json.loads(lines.readline())
        if "error" in answer:
            raise GuestError(f"{what}: {answer['error']}")
        return answer["return"]

    def _monitor(self, line: str) -> str:
        orders: list[dict[str, Any]] = [{"execute": "qmp_capabilities"}]
        orders += [{"execute": "human-monitor-command", "arguments": {"command-line": line}}]
        with self._connected("monitor", BOOT_S) as lines:
            lines.readline()
            for order in orders:
                lines.write(json.dumps(order) + "\n")
                lines.flush()
                answer = json.loads(lines.readline())
                while "event" in answer:
                    answer = json.loads(lines.readline())
        return answer["return"]

    @contextmanager
    def _connected(self, name: str, within_s: float) -> Iterator[Any]:
        deadline = time.monotonic() + 60
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(within_s)
            while True:
                self._require_running()
                try:
                    connection.connect(str(self._socket(name)))
                    break
                except OSError:
                    if time.monotonic() > deadline:
                        raise
                time.sleep(0.05)
            with connection.makefile("rw") as lines:
                yield lines

    def _require_running(self) -> None:
        if self._process is None or self._process.poll() is not None:
            raise GuestError("QEMU ended: " + self._path("qemu.log").read_text()[-2000:])

    def await_agent(self) -> None:
        """Until a shell can be had, which is before all units are up. Raises `GuestError`."""
        deadline = time.monotonic() + BOOT_S
        while True:
            try:
                self.ask("guest-ping", within_s=5.0)
                return
            except (OSError, ValueError) as error:
                if time.monotonic() > deadline:
                    console = self._path("console.log").read_text(errors="replace")[-2000:]
                    raise GuestError(f"the guest's agent does not answer; its console: {console}") from error
            time.sleep(LOOK_S)

    # -- devices ------------------------------------------------------------

    def plug(self, name: str, kind: str | None = None, **options: Any) -> None:
        """Plug in a new device of `kind` with its options, or one that was unplugged."""
        if kind is not None:
            port = next(one for one in PORTS if one not in self._ports.values() or self._ports.get(name) == one)
            self._ports[name] = port
            self._cables[name] = Cable(build_driver(MODELS, kind, options), self._socket(port))
        self._cables[name].plug()

    def unplug(self, name: str) -> None:
        """Pull it out; `plug` without a kind puts it back."""
        self._cables[name].unplug()

    def inject(self, name: str, fault: str, **parameters: Any) -> None:
        """Arm a fault of the device."""
        self._cables[name].inject(fault, **parameters)

    def state(self, name: str) -> dict[str, Any]:
        """What the device says of itself."""
        return self._cables[name].state()


class Command:
    """A program that runs in the guest."""

    def __init__(self, machine: Machine, pid: int, command: tuple[str, ...]) -> None:
        self._machine, self._pid, self._command = machine, pid, command

    def result(self, within_s: float = COMMAND_S) -> str:
        """What it said. Raises `GuestError` unless it ends with 0 in time."""
        deadline = time.monotonic() + within_s
        while True:
            told = self._machine.ask("guest-exec-status", pid=self._pid)
            if told["exited"]:
                break
            if time.monotonic() > deadline:
                raise GuestError(f"{self._command} is still running after {within_s:g} s")
            time.sleep(LOOK_S)
        said = "".join(base64.b64decode(told.get(f"{k}-data", "")).decode(errors="replace") for k in ("out", "err"))
        if told.get("exitcode", 1) != 0:
            raise GuestError(f"{self._command} ended with {told.get('exitcode', told.get('signal'))}: {said}")
        return said
