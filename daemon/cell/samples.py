"""One row of the cell's record, as executor, store and science share it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

StepKind = Literal["charge", "discharge", "hold", "rest", "off"]


@dataclass(frozen=True)
class CellRow:
    """One sample with its place in the experiment. `current_ma` > 0 charges the cell."""

    t_s: float
    """Potentiostat's clock, seconds; the run adds its clock offset to get run time."""
    host_t_s: float
    voltage_v: float
    current_ma: float
    cycle: int
    """Counts from 0; -1 outside an experiment."""
    step: int
    """Index of the step within the cycle; -1 outside an experiment."""
    step_kind: StepKind
    charge_mah: float
    """Net charge since the experiment began (trapezoidal coulometry), positive after charging."""
