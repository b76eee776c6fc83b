"""What each model can."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class UnitModel:
    """One model's range as a potentiostat; voltages from 0 up."""

    name: str
    max_voltage_v: float
    max_current_ma: float


MODELS = {
    "2450": UnitModel("Keithley 2450", 20.0, 1000.0),
    "2460": UnitModel("Keithley 2460", 20.0, 4000.0),
    "2461": UnitModel("Keithley 2461", 20.0, 4000.0),
}
"""By what ``*IDN?`` calls it."""
