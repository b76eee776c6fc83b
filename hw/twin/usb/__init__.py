"""Emulated USB devices: models of the device side, and the links by which a host sees them on its bus."""

from __future__ import annotations

MODELS: dict[str, str] = {
    "loopback": "hw.twin.usb.loopback:Loopback",
}
"""Kinds of device an emulated bus can plug in: name to ``module:Class``."""
