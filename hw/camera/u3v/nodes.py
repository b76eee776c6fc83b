"""The camera's features by their standard names (SFNC), through its own description of them.

The node map is EMVA's `genicam`; this is the port that it reads and writes registers by, and plain words for refusals.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

from genicam import genapi

from hw.camera.u3v.gencp import GenCp
from hw.errors import CameraError, CameraReason, InstrumentError
from hw.usb.errors import UsbError, UsbReason

Value = TypeVar("Value")
READABLE = (genapi.EAccessMode.RO, genapi.EAccessMode.RW)
WRITABLE = (genapi.EAccessMode.WO, genapi.EAccessMode.RW)


class _Port(genapi.AbstractPort):
    """Registers, as the node map asks for them. What went wrong is kept: it does not cross the library whole."""

    def __init__(self, registers: GenCp) -> None:
        super().__init__()
        self.registers = registers
        self.error: UsbError | None = None

    def read(self, address: int, length: int) -> bytes:
        """Part of the library's interface."""
        return self._kept(lambda: self.registers.read(address, length))

    def write(self, address: int, data: bytes) -> None:
        """Part of the library's interface."""
        self._kept(lambda: self.registers.write(address, bytes(data)))

    def get_access_mode(self) -> Any:
        """Part of the library's interface."""
        return genapi.EAccessMode.RW

    def open(self) -> None:
        """Part of the library's interface."""

    def close(self) -> None:
        """Part of the library's interface."""

    def is_open(self) -> bool:
        """Part of the library's interface."""
        return True

    def _kept(self, act: Callable[[], Value]) -> Value:
        try:
            return act()
        except UsbError as error:
            self.error = error
            raise RuntimeError(error.detail) from error


class Nodes:
    """Features by name. One thread's. Raises `UsbError` when the camera fails, `CameraError` when it refuses."""

    def __init__(self, description: str, registers: GenCp) -> None:
        self._map = genapi.NodeMap()
        self._chunks: Any = None
        self._port = _Port(registers)
        try:
            self._map.load_xml_from_string(description)
            self._map.connect(self._port, "Device")
        except genapi.GenericException as error:
            detail = f"the camera's description cannot be read: {_words(error)}"
            raise UsbError(UsbReason.PROTOCOL, detail) from error

    def readable(self, name: str) -> bool:
        """Whether it is there and has a value now."""
        return self._mode(name) in READABLE

    def writable(self, name: str) -> bool:
        """Whether it is there and may be set now."""
        return self._mode(name) in WRITABLE

    def get(self, name: str) -> Any:
        """Its value: int, float, bool, or the entry's name; None where it has none now."""
        if not self.readable(name):
            return None
        return self._asked(name, lambda: self._map.get_node(name).value)

    def number(self, *names: str) -> float | None:
        """The first of these that has a value, as a float."""
        for name in names:
            value = self.get(name)
            if value is not None:
                return float(value)
        return None

    def limits(self, name: str) -> tuple[float, float]:
        """Least and greatest value now; without bounds where it states none."""
        node = self._map.get_node(name) if self.readable(name) else None
        if node is None or not hasattr(node, "min"):
            return -math.inf, math.inf
        return self._asked(name, lambda: (float(node.min), float(node.max)))

    def entries(self, name: str) -> list[str]:
        """Names an enumeration may take now; empty where there is no such enumeration."""
        node = self._map.get_node(name) if self._mode(name) is not None else None
        if not hasattr(node, "symbolics"):
            return []
        assert node is not None

        def available() -> list[str]:
            modes = {symbol: node.get_entry_by_name(symbol).get_access_mode() for symbol in node.symbolics}
            return [symbol for symbol, mode in modes.items() if mode in READABLE + WRITABLE]

        return self._asked(name, available)

    def set(self, name: str, value: Any) -> None:
        """Set it. Raises `CameraError` (BAD_SETTING) naming it, its range and the camera's words."""
        if not self.writable(name):
            why = "cannot be changed now" if self.readable(name) else "is not a feature of this camera"
            raise CameraError(CameraReason.BAD_SETTING, f"{name} {why}")

        def act() -> None:
            node = self._map.get_node(name)
            whole = isinstance(node, genapi.IInteger) and not isinstance(value, str)
            node.value = int(value) if whole else value

        self._asked(f"{name} = {value!r}", act)

    def execute(self, name: str) -> None:
        """Run a command. Raises as `set`."""
        if not self.writable(name):
            raise CameraError(CameraReason.BAD_SETTING, f"the camera has no command {name} now")
        self._asked(name, lambda: self._map.get_node(name).execute())

    def attach_chunks(self, data: bytes) -> bool:
        """Have features named ``Chunk...`` tell what came with a frame; False when `data` cannot be read as chunks."""
        self._chunks = self._chunks or genapi.ChunkAdapterU3V(self._map)
        try:
            self._chunks.attach_buffer(data, len(data))
        except genapi.GenericException:
            return False
        return True

    def _mode(self, name: str) -> Any:
        """None where there is no such node."""
        if not self._map.has_node(name):
            return None
        return self._asked(name, lambda: self._map.get_node(name).get_access_mode())

    def _asked(self, what: str, ask: Callable[[], Value]) -> Value:
        self._port.error = None
        try:
            return ask()
        except (genapi.GenericException, RuntimeError, TypeError, ValueError, OverflowError) as error:
            if self._port.error is not None:
                raise self._port.error from error
            if isinstance(error, InstrumentError):
                raise
            raise CameraError(CameraReason.BAD_SETTING, f"{what}: {_words(error)}") from error


def _words(error: Exception) -> str:
    """The library's sentence without where in its sources it was raised."""
    return str(error).split(" : ")[0].split(" (file ")[0]
