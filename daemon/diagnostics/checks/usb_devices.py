"""Which USB devices the configured drivers look for, and which of these are on the bus. Opens none of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hw.usb.bus import FoundDevice, UsbId, find


def _u3v() -> list[UsbId]:
    from hw.camera.u3v.discovery import CONTROL

    return [UsbId(interface=CONTROL)]


def _methodscript() -> list[UsbId]:
    from hw.potentiostat.methodscript.links import PRODUCTS

    return [UsbId(product=product) for product in PRODUCTS]


def _keithley() -> list[UsbId]:
    from hw.potentiostat.keithley.driver import VENDOR_ID
    from hw.usb.usbtmc import TRIPLES

    return [UsbId(VENDOR_ID, interface=triple) for triple in TRIPLES]


WANTED: dict[str, Callable[[], list[UsbId]]] = {"u3v": _u3v, "methodscript": _methodscript, "keithley": _keithley}
"""Driver -> what it would open. The functions import only then: a simulated instrument does without."""
NOT_USB = frozenset({"loop", "none", "replay", "twin"})


@dataclass(frozen=True)
class DriverChoice:
    """A driver and its options, as configured."""

    driver: str = ""
    """Empty: not known, as when the settings cannot be read."""
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def terminal(self) -> str:
        """Path of the kernel's terminal that is used in place of a USB device; empty without one."""
        return str(self.options.get("device", "")) if self.options.get("link") == "tty" else ""

    @property
    def serial(self) -> str:
        """Which one is meant; empty: the only one."""
        return str(self.options.get("serial", ""))

    def no_usb(self) -> str:
        """Why there is no USB device to look for; empty where there is one."""
        if not self.driver:
            return "the settings, and so the driver, are not known"
        if self.driver not in WANTED:
            return f"the driver '{self.driver}' uses no USB device"
        return f"it is a terminal, {self.terminal}" if self.terminal else ""

    def on_the_bus(self) -> list[FoundDevice]:
        """Devices of the driver's kind, those with another serial number too. Raises `UsbError`."""
        return find(WANTED[self.driver]())

    def meant(self, found: list[FoundDevice]) -> FoundDevice | None:
        """The one that the driver would take, as far as it can be told without opening any."""
        if self.serial:
            return next((one for one in found if one.serial == self.serial), None)
        return found[0] if len(found) == 1 else None
