"""Which MethodSCRIPT devices can drive a cell, and within which range."""

from __future__ import annotations

from dataclasses import dataclass

from hw.errors import CellReason, PotentiostatError


@dataclass(frozen=True)
class Model:
    """One kind of device."""

    name: str
    window_v: float
    """Voltages of at most this, of either sign, are measured and driven."""
    max_current_ma: float


MODELS: dict[str, Model] = {
    "es4_hr": Model("EmStat4 HR", 6.0, 200.0),
    "mes4hr": Model("MultiEmStat4 HR", 6.0, 200.0),
    "es4_lr": Model("EmStat4 LR", 3.0, 30.0),
    "mes4lr": Model("MultiEmStat4 LR", 3.0, 30.0),
    "nexus1": Model("Nexus", 10.0, 1000.0),
}
"""What firmware calls itself -> the model."""
UNFIT = {
    "espbl": "the potentiostat waits in its boot loader; start it anew, or load its firmware",
    "espico": "an EmStat Pico has no galvanostat and measures up to 2 V: it cannot cycle a battery",
    "senswb": "a Sensit has no galvanostat and measures up to 2 V: it cannot cycle a battery",
}
"""What refused devices call themselves -> why."""
REQUIRED_BITS = {
    28: "meas_loop_ca",
    30: "meas_loop_ocp",
    63: "timer_start",
    64: "timer_get",
    65: "set_range",
    66: "set_range_minmax",
    67: "meas_loop_cp",
    68: "set_i",
}
"""Script commands our scripts use that not every device has, by their bit in the answer to ``CM``."""


def identify(firmware: str, cell_max_voltage_v: float) -> Model:
    """The model of a firmware string, the answer to ``t``. Raises `PotentiostatError` when it cannot drive the cell."""
    known = firmware.strip().lower()
    for prefix, why in UNFIT.items():
        if known.startswith(prefix):
            raise PotentiostatError(CellReason.UNSUITABLE, why)
    model = next((model for prefix, model in MODELS.items() if known.startswith(prefix)), None)
    if model is None:
        raise PotentiostatError(CellReason.UNSUITABLE, f"'{firmware[:40]}' is not a potentiostat known to this driver")
    if model.window_v < cell_max_voltage_v:
        detail = f"an {model.name} measures up to {model.window_v:g} V, less than the cell's {cell_max_voltage_v:g} V"
        raise PotentiostatError(CellReason.UNSUITABLE, detail)
    return model


def check_capabilities(bits: int) -> None:
    """Raises `PotentiostatError` naming the commands that the device's firmware does not have."""
    missing = [name for bit, name in REQUIRED_BITS.items() if not bits >> bit & 1]
    if missing:
        raise PotentiostatError(CellReason.UNSUITABLE, f"the potentiostat's firmware lacks {', '.join(missing)}")
