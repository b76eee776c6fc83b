"""What goes wrong on the bus, as an error of a potentiostat."""

from __future__ import annotations

from hw.errors import CellReason, PotentiostatError, UsbError, UsbReason

_REASONS = {
    UsbReason.NOT_FOUND: CellReason.NOT_FOUND,
    UsbReason.UNPLUGGED: CellReason.UNPLUGGED,
    UsbReason.STALLED: CellReason.STALLED,
    UsbReason.TIMEOUT: CellReason.STALLED,
}


def cell_error(error: UsbError) -> PotentiostatError:
    """The same failure as a potentiostat's; what is said of the bus alone keeps its own reason and remedy."""
    reason = _REASONS.get(error.reason) if isinstance(error.reason, UsbReason) else None
    return PotentiostatError(reason or error.reason, error.detail)
