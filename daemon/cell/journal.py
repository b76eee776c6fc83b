"""What the watch over the cell tells the rest of the daemon: rows, events, the end of an experiment, and a snapshot."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass, field
from typing import Any

from daemon.cell.coulometry import Coulometer
from daemon.cell.executor import Place
from daemon.cell.samples import CellRow
from daemon.errors import Reason
from daemon.events import Event, EventKind
from daemon.parts import CellState
from hw.potentiostat.contract import CellSample

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExperimentEnd:
    """How an experiment ended. `reason` is empty when it ended as asked, else a stable code or the operator's word."""

    reason: str
    detail: str = ""


@dataclass(frozen=True)
class Aftermath:
    """Why a cell stays off after its potentiostat came back."""

    reason: Reason
    detail: str


@dataclass(frozen=True)
class Snapshot:
    """The cell after the last thing that happened to it."""

    state: CellState = "off"
    reason: Reason | None = None
    cause: Reason | None = None
    """What began it, where `reason` has become worse since (IN_DOUBT)."""
    detail: str = ""
    in_doubt: bool = False
    on: bool = False
    last: CellSample | None = None
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """What is new since the last report."""

    snapshot: Snapshot
    rows: list[CellRow]
    events: list[Event]
    began: bool
    ended: ExperimentEnd | None


class Journal:
    """Collects what happened until it is taken; used by one thread."""

    def __init__(self, clock_rate: float, max_gap_s: float) -> None:
        self._clock_rate = clock_rate
        self._max_gap_s = max_gap_s
        self.last: CellSample | None = None
        """The latest sample with finite stamps."""
        self._samples = self._rejected = 0
        self._clear()
        self.meter = Coulometer(max_gap_s)
        """Charge since the experiment began."""

    def _clear(self) -> None:
        self._rows: list[CellRow] = []
        self._events: list[Event] = []
        self._began = False
        self._ended: ExperimentEnd | None = None

    def begin(self) -> None:
        """An experiment begins: its charge counts from now."""
        self.meter = Coulometer(self._max_gap_s)
        self._began, self._ended = True, None

    def end(self, end: ExperimentEnd) -> None:
        """The experiment ended."""
        self._ended = end

    def sample(self, sample: CellSample, place: Place) -> None:
        """Keep a sample; one without finite stamps has no place in a record and is counted."""
        self._samples += 1
        if not (math.isfinite(sample.device_t_s) and math.isfinite(sample.host_t_s)):
            self._rejected += 1
            return
        self.meter.add(sample.device_t_s, sample.current_ma, place.cycle)
        self.last = sample
        self._rows.append(
            CellRow(
                t_s=sample.device_t_s,
                host_t_s=sample.host_t_s,
                voltage_v=sample.voltage_v,
                current_ma=sample.current_ma,
                cycle=place.cycle,
                step=place.step,
                step_kind=place.kind,
                charge_mah=self.meter.net_mah,
            )
        )

    def event(self, kind: EventKind, detail: str, magnitude: float, sample: CellSample | None = None) -> None:
        """Record an event at `sample`, or now; its times are on the potentiostat's clock, as the rows' are."""
        now_s = time.monotonic()
        found_s = self.device_time(now_s)
        known = sample is not None and math.isfinite(sample.device_t_s)
        onset_s = sample.device_t_s if sample is not None and known else found_s
        self._events.append(Event(kind, onset_s, found_s, magnitude=magnitude, detail=detail, detected_host_t_s=now_s))
        log.warning("%s: %s", kind.value, detail)

    def device_time(self, now_s: float) -> float:
        """The potentiostat's clock at a `time.monotonic()`, by its last sample and stated rate; NaN without one."""
        if self.last is None:
            return math.nan
        return self.last.device_t_s + (now_s - self.last.host_t_s) * self._clock_rate

    def take(self, snapshot: Snapshot) -> Report:
        """Everything new since the last call."""
        report = Report(snapshot, self._rows, self._events, self._began, self._ended)
        self._clear()
        return report

    def values(self) -> dict[str, Any]:
        """For the status."""
        cycle = self.meter.cycles[-1] if self.meter.cycles else None
        return {
            "charge_mah": self.meter.net_mah,
            "cycle_charge_mah": cycle.charge_mah if cycle else None,
            "cycle_discharge_mah": cycle.discharge_mah if cycle else None,
            "samples": self._samples,
            "samples_rejected": self._rejected,
            "gaps": self.meter.gaps,
        }
