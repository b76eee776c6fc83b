"""Errors of MethodSCRIPT devices as sentences, with what helps."""

from __future__ import annotations

_SETTING = "correct the option of the driver, or report this with a bundle"
_FIRMWARE = "update the firmware of the potentiostat, or use another model"
_REPORT = "report this with a bundle"
_CELL = "check leads, cell and set point"

CODES: dict[str, tuple[str, str]] = {
    "0003": ("unknown command", _FIRMWARE),
    "0006": ("command not allowed now", "start the potentiostat anew"),
    "0007": ("wrong argument", _REPORT),
    "0008": ("command too long", _REPORT),
    "0009": ("time-out within the device", "start the potentiostat anew"),
    "000B": ("no memory for variables", _REPORT),
    "000C": ("no script loaded", _REPORT),
    "000F": ("potential outside the device's range", _SETTING),
    "0010": ("a number is not finite", _CELL),
    "0014": ("open circuit wanted while the cell is on", "see what switched the cell on"),
    "001B": ("not supported by this device", _FIRMWARE),
    "001F": ("not licensed", "ask the maker for the licence"),
    "0021": ("mode of the potentiostat not supported", _FIRMWARE),
    "0023": ("not valid in this mode", _REPORT),
    "0024": ("too many variables", _REPORT),
    "0028": ("division by zero", _REPORT),
    "0032": ("critical overload of the cell", _CELL),
    "0047": ("no file system", _SETTING),
    "0052": ("data came too fast for the device", "use a better cable or port"),
    "0058": ("timing too fast", "choose a longer interval_s"),
    "005A": ("timing cannot be kept", "choose a longer interval_s"),
    "0080": ("counter electrode oscillates", _CELL),
    "0082": ("warnings must be cleared first", "start the potentiostat anew"),
    "4001": ("unknown script command", _FIRMWARE),
    "4004": ("character not allowed", _REPORT),
    "4005": ("script too large", _REPORT),
    "400B": ("measurement loops within each other", _REPORT),
    "400D": ("script too deep", _REPORT),
    "400F": ("index outside the array", _REPORT),
    "4018": ("script ends too early", _REPORT),
    "401C": ("too many values in a package", _REPORT),
    "4026": ("variable exists already", _REPORT),
    "4027": ("measurement wanted while the cell is off", _REPORT),
    "4028": ("not while the cell is on", _REPORT),
    "4032": ("range changed within a measurement loop", _REPORT),
    "4033": ("potential or current changed within a measurement loop", _REPORT),
    "4034": ("not licensed", "ask the maker for the licence"),
    "4205": ("number out of bounds", _SETTING),
    "420B": ("variable not declared", _REPORT),
    "7FFF": ("fatal error of the device", "reset the potentiostat"),
}
"""Code -> (what it means, what helps)."""


def sentence(code: str, place: str = "") -> str:
    """What an error code says, and what to do."""
    what, helps = CODES.get(code.upper(), ("an error that is not in the list", "see the maker's manual"))
    where = f" ({place})" if place else ""
    return f"error {code.upper()}{where}, {what}: {helps}"
