"""The cell's line in the status."""

from __future__ import annotations

import math
import time
from typing import Any

from daemon.cell.journal import Snapshot
from daemon.parts import CellState, PartState, PartStatus
from hw.potentiostat.contract import PotentiostatInfo

_PART_STATES: dict[CellState, PartState] = {"tripped": "degraded", "lost": "failed"}


def part_status(
    phase: PartState, snapshot: Snapshot, info: PotentiostatInfo | None, stuck_calls: int, *, off_confirmed: bool
) -> PartStatus:
    """The line; `phase` is the part's own state, which the cell's refines once it is ready."""
    state = _PART_STATES.get(snapshot.state, "ready") if phase == "ready" else phase
    reason = snapshot.reason if state in ("degraded", "failed") else None
    return PartStatus(
        name="cell",
        state=state,
        reason=reason.code if reason else "",
        detail=snapshot.detail if reason else "",
        remedy=reason.remedy if reason else "",
        values=_values(snapshot, info, stuck_calls) | {"off_confirmed": off_confirmed},
    )


def _values(snapshot: Snapshot, info: PotentiostatInfo | None, stuck_calls: int) -> dict[str, Any]:
    last = snapshot.last
    values: dict[str, Any] = {
        "state": snapshot.state,
        "mode": last.mode.value if last else None,
        "voltage_v": _finite(last.voltage_v) if last else None,
        "current_ma": _finite(last.current_ma) if last else None,
        "sample_age_s": time.monotonic() - last.host_t_s if last else None,
        "step": None,
        "cycle": None,
        "model": info.model if info else None,
        "serial": info.serial if info else None,
        "host_loss": info.host_loss.value if info else None,
        "host_loss_after_s": info.host_loss_after_s if info else None,
        "host_loss_bound_s": info.host_loss_bound_s if info else None,
        "stuck_calls": stuck_calls,
    }
    return values | snapshot.values


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
