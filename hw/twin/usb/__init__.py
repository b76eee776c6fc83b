"""Emulated USB devices: models of the device side, and the links by which a host sees them on its bus."""

from __future__ import annotations

MODELS: dict[str, str] = {
    "loopback": "hw.twin.usb.loopback:Loopback",
    "methodscript-cdc": "hw.twin.methodscript.usb:MethodScriptCdc",
    "methodscript-ftdi": "hw.twin.methodscript.usb:MethodScriptFtdi",
    "smu": "hw.twin.smu.device:Smu",
    "u3v": "hw.twin.u3v.camera:U3vCamera",
}
"""Kinds of device an emulated bus can plug in: name to ``module:Class``."""
