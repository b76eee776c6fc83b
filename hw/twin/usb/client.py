"""Giving orders to an emulated bus."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import dataclass
from typing import Any

from hw.twin.usb.bus import VARIABLE


class BusError(Exception):
    """The bus refuses the order, and says why."""


@dataclass(frozen=True)
class Plugged:
    """Where a device is."""

    bus: int
    address: int
    port: int
    node: str


class BusClient:
    """One connection to the bus of this process's environment, or of `path`; used by one thread."""

    def __init__(self, path: str | None = None) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.connect(path or os.environ[VARIABLE])
        except OSError:
            self._socket.close()
            raise
        self._lines = self._socket.makefile("rb")

    def plug(
        self, name: str, kind: str | None = None, *, drivers: dict[int, str] | None = None, **options: Any
    ) -> Plugged:
        """Plug in a new device of `kind` with its options, or one that was unplugged.

        `drivers`: interface -> kernel driver that is bound to it.
        """
        order: dict[str, Any] = {"name": name, "drivers": {str(k): v for k, v in (drivers or {}).items()}}
        if kind is not None:
            order |= {"kind": kind, "options": options}
        return Plugged(**self._order("plug", **order))

    def unplug(self, name: str) -> None:
        """Pull it out; `plug` without a kind puts it back, powered up anew."""
        self._order("unplug", name=name)

    def inject(self, name: str, fault: str, **parameters: Any) -> None:
        """Arm a fault of the device."""
        self._order("inject", name=name, fault=fault, parameters=parameters)

    def state(self, name: str) -> dict[str, Any]:
        """What the device says of itself: `counts`, `plugged` and what is its own."""
        return self._order("state", name=name)

    def kinds(self) -> list[str]:
        """Kinds that can be plugged in."""
        return self._order("kinds")

    def usbfs_memory(self, limit_mb: int) -> None:
        """Set the kernel's `usbfs_memory_mb`; 0: no limit."""
        self._order("usbfs_memory", limit_mb=limit_mb)

    def clear(self) -> None:
        """Unplug and forget everything."""
        self._order("clear")

    def close(self) -> None:
        """Idempotent; devices stay."""
        self._lines.close()
        self._socket.close()

    def _order(self, what: str, **order: Any) -> Any:
        try:
            self._socket.sendall(json.dumps({"do": what} | order).encode() + b"\n")
            line = self._lines.readline()
        except ConnectionError:
            line = b""
        if not line:
            raise BusError("the bus is gone")
        answer = json.loads(line)
        if "error" in answer:
            raise BusError(answer["error"])
        return answer["ok"]
