"""An emulated bus: one process that owns the devices, serves programs that use them, and takes orders on a socket.

Orders are JSON lines: `{"do": "plug", "name": "camera", "kind": "u3v", "options": {...}}`, answered by `{"ok": ...}` or
`{"error": "..."}`. `docs/emulated-devices.md` lists them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import selectors
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hw.drivers import build_driver
from hw.errors import InstrumentError
from hw.twin.usb import MODELS
from hw.twin.usb.device import UsbModel
from hw.twin.usb.testbed import Place, Testbed
from hw.twin.usb.umockdev import PATIENCE_S, PRELOAD, Memory, UsbfsDevice, UsbfsFile, pass_through

VARIABLE = "PHOTOMETRYD_EMULATED_BUS"
"""Environment variable of the host command: path of the control socket."""
LOOK_S = 0.05  # between two looks for programs that want to hear of devices
USBFS_MEMORY_MB = 1000  # as on a machine that was set up for a camera
LAST_ADDRESS = 127
HIGH_SPEED_BUS, SUPERSPEED_BUS = 1, 2


class Bus:
    """`run` a host command with devices that it can plug in by orders on the control socket."""

    def __init__(self, control: Path | None = None) -> None:
        self._testbed = Testbed()
        self._control_path = control or self._testbed.root / "control.sock"
        self._memory = Memory()
        self._selector = selectors.DefaultSelector()
        self._plugged: dict[str, UsbfsDevice] = {}
        self._left: list[UsbfsDevice] = []
        """Unplugged, with files that programs have not closed."""
        self._models: dict[str, UsbModel] = {}
        self._addresses: dict[int, int] = {}
        self._ports: dict[tuple[str, int], int] = {}
        self._rung: list[Callable[[], None]] = []
        self._bell, self._ringer = socket.socketpair()
        self._exit_code: int | None = None
        self._set_memory(USBFS_MEMORY_MB)

    def environment(self) -> dict[str, str]:
        """What a program's environment must hold to see the bus."""
        preload = ":".join(filter(None, (PRELOAD, os.environ.get("LD_PRELOAD", ""))))
        return {"LD_PRELOAD": preload, "UMOCKDEV_DIR": str(self._testbed.root), VARIABLE: str(self._control_path)}

    def run(self, command: list[str]) -> int:
        """Run the host command to its end; its exit code, 128 + the signal that ended it."""
        control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        control.bind(str(self._control_path))
        control.listen(16)
        self._watch(control, lambda: self._accept_order(control))
        self._watch(self._bell, self._answer_bell)
        others = self._testbed.listen_for_others()
        self._watch(others, lambda: self._accept_other(others))
        host: subprocess.Popen[bytes] | None = None
        try:
            host = subprocess.Popen(command, env=os.environ | self.environment())
            threading.Thread(target=self._wait_for, args=(host,), daemon=True, name="host").start()
            while self._exit_code is None:
                self._turn()
        finally:
            if host is not None and self._exit_code is None:
                host.terminate()
            control.close()
            others.close()
            self._close()
        return self._exit_code

    def _wait_for(self, host: subprocess.Popen[bytes]) -> None:
        code = host.wait()
        self._ring(lambda: self._end_with(code if code >= 0 else 128 - code))

    def _end_with(self, code: int) -> None:
        self._exit_code = code

    def _ring(self, act: Callable[[], None]) -> None:
        """From another thread: have `act` done by the bus, unless that has ended."""
        self._rung.append(act)
        with contextlib.suppress(OSError):
            self._ringer.send(b"x")

    def _watch(self, source: socket.socket, act: Callable[[], None]) -> None:
        self._selector.register(source, selectors.EVENT_READ, act)

    # -- the loop ------------------------------------------------------------

    def _turn(self) -> None:
        now_s = time.monotonic()
        times = [device.port.due_s(now_s) for device in self._plugged.values()]
        wait_s = min([LOOK_S, *(time_s - now_s for time_s in times if time_s is not None)])
        for key, _ in self._selector.select(max(wait_s, 0.0005)):
            key.data()
        now_s = time.monotonic()
        for name, device in list(self._plugged.items()):
            device.port.pump(now_s)
            if device.port.gone:
                self._unplug(name)
            else:
                device.show_ready()
        for device in self._left:
            device.show_ready()
        self._testbed.adopt_listeners()

    def _accept_file(self, device: UsbfsDevice) -> None:
        file = device.accept()
        self._watch(file.connection, lambda: self._serve(device, file))

    def _serve(self, device: UsbfsDevice, file: UsbfsFile) -> None:
        if not file.serve():
            self._selector.unregister(file.connection)
            if device in self._left and not device.files:
                self._left.remove(device)
                device.close()

    def _accept_other(self, listener: socket.socket) -> None:
        connection, _ = listener.accept()
        connection.settimeout(PATIENCE_S)

        def serve() -> None:
            if not pass_through(connection):
                self._selector.unregister(connection)
                connection.close()

        self._watch(connection, serve)

    # -- orders ------------------------------------------------------------

    def _accept_order(self, control: socket.socket) -> None:
        connection, _ = control.accept()
        lines = connection.makefile("rb")

        def read() -> None:
            line = lines.readline()
            if line:
                self._order(connection, line)
            else:
                self._selector.unregister(connection)
                lines.close()
                connection.close()

        self._watch(connection, read)

    def _order(self, connection: socket.socket, line: bytes) -> None:
        def reply(answer: dict[str, Any]) -> None:
            try:
                connection.sendall(json.dumps(answer).encode() + b"\n")
            except OSError as error:
                print(f"the bus could not answer: {error}", file=sys.stderr)

        try:
            order = json.loads(line)
            what = order.pop("do")
            if what == "plug" and "kind" in order:
                self._build(order, reply)
                return
            act = getattr(self, f"_do_{what}", None)
            if act is None:
                raise ValueError(f"there is no order '{what}'")
            reply({"ok": act(**order)})
        except Exception as error:  # noqa: BLE001 - whoever gave the order gets the reason
            reply({"error": _sentence(error)})

    def _build(self, order: dict[str, Any], reply: Callable[[dict[str, Any]], None]) -> None:
        """Make the model in a thread: a camera renders for seconds, other devices go on meanwhile."""
        name, kind, options = order.pop("name"), order.pop("kind"), order.pop("options", {})
        self._require_free(name)

        def plug(model: UsbModel) -> None:
            try:
                self._require_free(name)
                if name in self._models:
                    self._models.pop(name).close()
                self._models[name] = model
                reply({"ok": self._do_plug(name, **order)})
            except Exception as error:  # noqa: BLE001 - as in `_order`
                reply({"error": _sentence(error)})

        def build() -> None:
            try:
                model = build_driver(MODELS, kind, options)
            except Exception as error:  # noqa: BLE001 - as in `_order`
                sentence = _sentence(error)
                self._ring(lambda: reply({"error": sentence}))
            else:
                self._ring(lambda: plug(model))

        threading.Thread(target=build, daemon=True, name=f"build-{name}").start()

    def _answer_bell(self) -> None:
        for _ in self._bell.recv(64):
            self._rung.pop(0)()

    def _require_free(self, name: str) -> None:
        if name in self._plugged:
            raise ValueError(f"'{name}' is plugged in already")

    def _do_plug(self, name: str, drivers: dict[str, str] | None = None) -> dict[str, Any]:
        """Plug in a device that was unplugged, at the same port with a new address."""
        self._require_free(name)
        if name not in self._models:
            raise ValueError(f"there is no device '{name}'")
        model = self._models[name]
        model.reset()
        bus = SUPERSPEED_BUS if model.speed_mbps >= 5000 else HIGH_SPEED_BUS
        address = self._free_address(bus)
        port = self._ports.setdefault((name, bus), 1 + sum(1 for _, other in self._ports if other == bus))
        bound = {int(number): driver for number, driver in (drivers or {}).items()}
        device = UsbfsDevice(self._testbed, Place(bus, address, port), model, bound, self._memory)
        self._plugged[name] = device
        self._watch(device.listener, lambda: self._accept_file(device))
        return dataclasses.asdict(device.place) | {"node": device.place.node}

    def _free_address(self, bus: int) -> int:
        """Addresses count up and begin anew, as Linux deals them out; 1 is the root hub's."""
        taken = {device.place.address for device in self._plugged.values() if device.place.bus == bus}
        address = self._addresses.get(bus, 1)
        for _ in range(LAST_ADDRESS):
            address = address % LAST_ADDRESS + 1
            if address > 1 and address not in taken:
                self._addresses[bus] = address
                return address
        raise ValueError("the bus is full")

    def _do_unplug(self, name: str) -> None:
        if name not in self._plugged:
            raise ValueError(f"'{name}' is not plugged in")
        self._unplug(name)

    def _unplug(self, name: str) -> None:
        device = self._plugged.pop(name)
        self._selector.unregister(device.listener)
        device.unplug()
        if device.files:
            self._left.append(device)
        else:
            device.close()

    def _do_inject(self, name: str, fault: str, parameters: dict[str, Any] | None = None) -> None:
        if name in self._plugged:
            self._plugged[name].port.inject(fault, time.monotonic(), **(parameters or {}))
        else:
            self._model(name).inject(fault, **(parameters or {}))

    def _do_state(self, name: str) -> dict[str, Any]:
        return self._model(name).state() | {"plugged": name in self._plugged}

    def _model(self, name: str) -> UsbModel:
        if name not in self._models:
            raise ValueError(f"there is no device '{name}'")
        return self._models[name]

    @staticmethod
    def _do_kinds() -> list[str]:
        return sorted(MODELS)

    def _do_usbfs_memory(self, limit_mb: int = USBFS_MEMORY_MB) -> None:
        """Kernel memory for transfers, 0 without limit."""
        self._set_memory(limit_mb)

    def _set_memory(self, limit_mb: int) -> None:
        self._memory.limit_mb = limit_mb
        self._testbed.set_usbfs_memory_mb(limit_mb)

    def _do_clear(self) -> None:
        """Unplug and forget all devices; limits as at the start."""
        for name in list(self._plugged):
            self._unplug(name)
        for model in self._models.values():
            model.close()
        self._models.clear()
        self._set_memory(USBFS_MEMORY_MB)

    def _close(self) -> None:
        self._do_clear()
        for device in self._left:
            device.close()
        self._selector.close()
        self._bell.close()
        self._ringer.close()
        self._control_path.unlink(missing_ok=True)
        self._testbed.close()


def _sentence(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"the order lacks {error}"
    if not isinstance(error, ValueError | TypeError | InstrumentError):
        traceback.print_exception(error, file=sys.stderr)
    return str(error) or type(error).__name__
