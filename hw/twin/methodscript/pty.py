"""The emulated device on a pseudo-terminal, as the kernel's serial driver would show it: tests need no USB bus."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import threading
import time
import tty
from pathlib import Path
from typing import Any

from hw.twin.methodscript.cell import DeviceOptions
from hw.twin.methodscript.device import MethodScriptDevice
from hw.twin.usb.device import Gone

NAP_S = 0.005


class PtyDevice:
    """Plugged in between `start` and `stop`, as the symbolic link `path`. Its methods may be called from any thread.

    While nobody has the terminal open, what the device says is lost; with `waits` it waits, as after a cable that no
    program reads.
    """

    def __init__(self, path: Path, options: DeviceOptions, *, waits: bool = False) -> None:
        self.path = path
        self.device = MethodScriptDevice(options)
        self._waits = waits
        self._lock = threading.Lock()
        self._master = -1
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> PtyDevice:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Plug in and begin to live."""
        self._plug()
        self._stop.clear()
        self._thread = threading.Thread(target=self._live, name="methodscript-pty")
        self._thread.start()

    def stop(self) -> None:
        """Pull the plug for good; idempotent."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._pull()
        self.device.close()

    def plug(self) -> None:
        """Plug it in again after the fault `unplug`."""
        with self._lock:
            self._plug()

    def inject(self, fault: str, **parameters: Any) -> None:
        """Arm a fault of the device; `unplug` takes the terminal away."""
        with self._lock:
            try:
                self.device.inject(fault, **parameters)
            except Gone:
                self._pull()

    def state(self) -> dict[str, Any]:
        """The device's, at this moment."""
        with self._lock:
            self.device.advance(time.monotonic())
            return self.device.state()

    def _plug(self) -> None:
        master, slave = os.openpty()
        tty.setraw(slave)
        os.set_blocking(master, False)
        self.path.unlink(missing_ok=True)
        self.path.symlink_to(os.ttyname(slave))
        os.close(slave)
        self._master = master

    def _pull(self) -> None:
        if self._master >= 0:
            os.close(self._master)
            self._master = -1
            self.path.unlink(missing_ok=True)

    def _live(self) -> None:
        pending = b""
        while not self._stop.wait(NAP_S):
            with self._lock:
                if self._master < 0:
                    pending = b""
                    self.device.advance(time.monotonic())
                    continue
                heard = self._hear()
                self.device.advance(time.monotonic())
                if heard is None and not self._waits:
                    self.device.discard()
                    pending = b""
                elif heard is not None:
                    pending = self._tell(pending or self.device.take(4096, time.monotonic()))

    def _hear(self) -> bytes | None:
        """What the host wrote; None while nobody has the terminal open."""
        poll = select.poll()
        poll.register(self._master, select.POLLIN)
        events = poll.poll(0)
        if events and events[0][1] & select.POLLHUP:
            return None
        data = b""
        if events:
            try:
                data = os.read(self._master, 65536)
            except OSError as error:
                if error.errno == errno.EIO:
                    return None
                raise
        self.device.feed(data)
        return data

    def _tell(self, data: bytes) -> bytes:
        """Write what goes; the rest for later."""
        sent = 0
        with contextlib.suppress(BlockingIOError):
            sent = os.write(self._master, data) if data else 0
        return data[sent:]
