"""What happens to the cell, sample by sample: the part that decides. Synchronous; used by the device's thread only."""

from __future__ import annotations

import logging
import math
import time
from typing import Any

from daemon.cell.device import Device, Permits, PermitWithdrawn, can_be_driven
from daemon.cell.executor import OUTSIDE, Command, Executor, Off, Place, SetCurrent
from daemon.cell.guards import ClockGuard, ObedienceGuard
from daemon.cell.journal import Aftermath, ExperimentEnd, Journal, Report, Snapshot
from daemon.cell.limits import Breach, check_sample, nearest_limit, stopped
from daemon.cell.plan import Plan
from daemon.errors import CellReason, ExperimentError, ExperimentReason, PotentiostatError, Reason
from daemon.events import EventKind
from daemon.parts import CellState
from daemon.recipe import CellLimits
from hw.potentiostat.contract import CellMode, CellSample, PotentiostatInfo

log = logging.getLogger(__name__)

MIN_PERIOD_S = 0.01  # samples of an accelerated cell are taken in batches: a hundred a second are watch enough
SLOW_SAMPLES = 1.5  # intervals after which a sample is missing, where that is longer than the deadline
GAP_SAMPLES = 10  # intervals without a sample that count as a gap in the charge


class CellWatch:
    """Reads, checks, decides and commands. Every method leaves the cell off when there is a doubt.

    State `lost` is final: the device is then closed, and another watch opened in its place.
    """

    def __init__(self, device: Device, permits: Permits, limits: CellLimits, sample_deadline_s: float) -> None:
        self._device = device
        self._permits = permits
        self._configured = self._limits = limits
        self._deadline_s = sample_deadline_s
        self._info: PotentiostatInfo | None = None
        self._drivable = self._expects_samples = False
        self._state: CellState = "off"
        self._reason: Reason | None = None
        self._cause: Reason | None = None
        self._detail = ""
        self._executor: Executor | None = None
        self._permit: object = None
        self._journal = Journal(1.0, math.inf)
        self._outside = False
        self._exhausted = False
        self._clock = ClockGuard(1.0, sample_deadline_s)
        self._obedience = ObedienceGuard(0.0, sample_deadline_s)
        self._heard_s = self._watched_s = time.monotonic()

    # opening and closing

    def open(self, aftermath: Aftermath | None = None) -> PotentiostatInfo:
        """Open the device; a cell found on is switched off and reported. Raises `InstrumentError`.

        With `aftermath` the cell counts as tripped from the start.
        """
        self._info = info = self._device.open()[0]
        self._drivable = can_be_driven(info)
        self._device.on = self._device.on and self._drivable
        self._expects_samples = self._drivable and info.sample_rate_hz > 0
        if self._expects_samples:
            interval_s = 1 / (info.sample_rate_hz * max(info.clock_rate, 1e-9))
            self._deadline_s = max(self._deadline_s, SLOW_SAMPLES * interval_s)
            self._journal = Journal(info.clock_rate, GAP_SAMPLES / info.sample_rate_hz)
        self._clock = ClockGuard(info.clock_rate, self._deadline_s)
        self._obedience = ObedienceGuard(info.max_current_ma, self._deadline_s)
        self._heard_s = self._watched_s = time.monotonic()
        if aftermath is not None:
            self._state, self._reason, self._detail = "tripped", aftermath.reason, aftermath.detail
        if self._device.on:
            self._stop(CellReason.FOUND_ON, "the cell was found on at the start", EventKind.CELL_LOST)
        if self._drivable and self._state != "lost":
            self._hand_over_limits()
        return info

    def _hand_over_limits(self) -> None:
        """Device limits are the second layer: without them the host watches alone, and the status says so."""
        try:
            self._device.set_limits(self._configured, self._opened())
        except PotentiostatError as error:
            self._device.has_limits = False
            log.warning("the potentiostat did not take the limits: %s", error)

    def _opened(self) -> PotentiostatInfo:
        if self._info is None:
            raise PotentiostatError(CellReason.NOT_FOUND, "the potentiostat is not open")
        return self._info

    def close(self, reason: str) -> None:
        """Cell off, device released, experiment ended with `reason`."""
        self._permits.withdraw()
        self._device.close()
        self._state = "lost" if self._device.in_doubt else "off"
        self._reason = CellReason.IN_DOUBT if self._device.in_doubt else None
        self._end_experiment(ExperimentEnd(reason))

    # the operator's orders

    def begin(self, plan: Plan, permit: object) -> None:
        """Start `plan`. Raises `ExperimentError` or `PotentiostatError`, with the cell off."""
        if self._state in ("running", "paused"):
            raise ExperimentError(ExperimentReason.BUSY, "an experiment is under way")
        sample = self._ready_sample(plan.limits, permit)
        self._device.set_limits(plan.limits, self._opened())
        self._limits, self._permit = plan.limits, permit
        self._state, self._reason, self._detail = "running", None, ""
        self._executor = executor = Executor(plan)
        self._journal.begin()
        self._apply(executor.begin(sample))
        self._finish_if_done()
        self._raise_if_stopped()

    def resume(self, permit: object) -> None:
        """Go on with the step that was paused. Raises `ExperimentError` or `PotentiostatError`, with the cell off."""
        if self._state != "paused" or self._executor is None:
            raise ExperimentError(ExperimentReason.NOT_RUNNING, "there is no paused experiment to go on with")
        self._ready_sample(self._limits, permit)
        self._state, self._permit = "running", permit
        self._apply(self._executor.resume())
        self._raise_if_stopped()

    def _ready_sample(self, limits: CellLimits, permit: object) -> CellSample:
        """The latest sample, if the cell may be energised from there."""
        last = self._journal.last
        if not self._drivable:
            raise PotentiostatError(CellReason.READ_ONLY, f"'{self._opened().model}' has no cell to drive")
        if self._state == "lost":
            raise PotentiostatError(self._reason or CellReason.STALLED, self._detail)
        if last is None or time.monotonic() - last.host_t_s > self._deadline_s:
            raise PotentiostatError(CellReason.STALLED, f"no sample in the last {self._deadline_s:g} s")
        breach = check_sample(last, limits, self._opened(), time.monotonic(), self._deadline_s)
        if breach is not None:
            raise ExperimentError(ExperimentReason.OUTSIDE_LIMITS, f"the cell is outside its limits now: {breach}")
        if not self._permits.holds(permit):
            raise ExperimentError(ExperimentReason.CANCELLED, "the cell was told to be off before the start")
        return last

    def _raise_if_stopped(self) -> None:
        if self._state in ("tripped", "lost"):
            raise PotentiostatError(self._reason or CellReason.FAULT, self._detail)

    def pause(self) -> None:
        """Open circuit; the experiment can go on. Raises `ExperimentError` when none runs."""
        if self._state not in ("running", "paused"):
            raise ExperimentError(ExperimentReason.NOT_RUNNING, "there is no running experiment to pause")
        if self._open_circuit():
            self._state = "paused"
        self._raise_if_stopped()

    def off(self, reason: str) -> None:
        """Open circuit and the experiment ended, whatever the state."""
        self._permits.withdraw()
        if self._open_circuit() and self._state != "lost":
            self._state, self._reason, self._detail = "off", None, ""
        self._end_experiment(ExperimentEnd(reason))

    def trip(self, reason: Reason, detail: str) -> None:
        """Cell off for a reason found outside; no effect when no experiment is under way and the cell is off."""
        if self._device.on or self._executor is not None:
            self._stop(reason, detail, EventKind.CELL_LOST)

    def unwatched(self) -> None:
        """Nobody asked for an iteration for the length of the deadline: an energised cell does not stay so."""
        if self._device.on and self._state == "lost":
            self._device.switch_off()
        elif self._device.on:
            waited_s = time.monotonic() - self._watched_s
            detail = f"the service did not look at the cell for {waited_s:.3g} s"
            self._stop(CellReason.UNWATCHED, detail, EventKind.CELL_LOST, waited_s)

    # watching

    def iterate(self, timeout_s: float) -> None:
        """Read once, waiting up to `timeout_s`, and act on every sample. Does not raise for what the device does."""
        try:
            self._iterate(timeout_s)
        except PotentiostatError as error:
            self._device_failed(error)
        except Exception:
            self._device.on = self._drivable
            self._stop(CellReason.FAULT, "the watch over the cell failed", EventKind.CELL_LOST)
            raise

    def _iterate(self, timeout_s: float) -> None:
        if self._state == "lost":
            return
        begun_s = time.monotonic()
        if begun_s - self._watched_s > self._deadline_s:
            self.unwatched()
        time.sleep(max(0.0, MIN_PERIOD_S - (begun_s - self._watched_s)))
        self._device.keep_alive(begun_s)
        samples = self._read(timeout_s)
        now_s = time.monotonic()
        if samples:
            self._heard_s = now_s
        for sample in samples:
            self._take(sample, now_s, newest=sample is samples[-1])
        silence_s = now_s - self._heard_s
        if self._expects_samples and silence_s > self._deadline_s:
            self._lose(CellReason.STALLED, f"no sample for {silence_s:.3g} s", silence_s)

    def _read(self, timeout_s: float) -> list[CellSample]:
        if self._exhausted:
            time.sleep(timeout_s)
            return []
        try:
            return self._device.read(timeout_s, self._deadline_s)
        except PotentiostatError as error:
            if error.reason is not CellReason.ENDED or self._device.on:
                raise
            self._exhausted = True
            return []

    def _take(self, sample: CellSample, now_s: float, *, newest: bool) -> None:
        """Check, record, then act. Only the newest sample of a batch has to be young."""
        if not self._drivable or self._state == "lost":
            self._journal.sample(sample, OUTSIDE)
            return
        max_age_s = self._deadline_s if newest and self._device.on else math.inf
        breach = (
            stopped(sample)
            or check_sample(sample, self._limits, self._opened(), now_s, max_age_s)
            or self._device_breach(sample)
        )
        doubt = self._doubt(sample, now_s)
        running = self._executor if self._state == "running" and breach is None and doubt is None else None
        command = running.feed(sample) if running is not None else None
        self._journal.sample(sample, self._place())
        if breach is not None and (self._device.on or not self._outside):
            self._breached(breach, sample)
        elif doubt is not None:
            self._distrust(*doubt, sample)
        elif running is not None:
            self._go_on(running, command, sample)
        self._outside = breach is not None

    def _device_breach(self, sample: CellSample) -> Breach | None:
        """The limit that made the device itself switch off."""
        before = self._obedience.gave_up(sample)
        if before is None or not self._device.has_limits:
            return None
        return nearest_limit(before, self._limits)

    def _place(self) -> Place:
        if self._executor is None:
            return OUTSIDE
        if self._state == "paused":
            return Place(self._executor.cycle, self._executor.index, "off")
        return self._executor.place()

    def _doubt(self, sample: CellSample, now_s: float) -> tuple[Reason, str] | None:
        if (sentence := self._obedience.feed(sample)) is not None:
            hint = " (it watches the limits too and may have met one)" if self._device.has_limits else ""
            return CellReason.DISOBEYED, sentence + hint
        if self._device.on and (sentence := self._clock.feed(sample.device_t_s, now_s)) is not None:
            return CellReason.CLOCK, sentence
        return None

    def _distrust(self, reason: Reason, sentence: str, sample: CellSample) -> None:
        """A device that confirmed to be off and is not has to be opened anew; otherwise off is enough."""
        detail = f"the potentiostat cannot be trusted: {sentence}"
        if self._device.on:
            self._stop(reason, detail, EventKind.CELL_LIMIT, sample=sample)
        else:
            self._device.on = True
            self._lose(reason, detail, math.nan)

    def _breached(self, breach: Breach, sample: CellSample) -> None:
        """Off at once. At open circuit, where there is nothing to switch off, only the first of a series counts."""
        self._device.on = self._device.on or sample.mode is not CellMode.OFF
        self._stop(CellReason.LIMIT, str(breach), EventKind.CELL_LIMIT, breach.value, sample)

    def _go_on(self, executor: Executor, command: Command | None, sample: CellSample) -> None:
        breach = executor.breach()
        if breach is not None:
            self._breached(breach, sample)
        elif command is not None:
            self._apply(command)
            self._finish_if_done()

    def _finish_if_done(self) -> None:
        if self._executor is None or not self._executor.finished or self._state != "running":
            return
        if not self._device.on or self._open_circuit():
            self._state = "idle"
            self._end_experiment(ExperimentEnd(""))
            self._hand_over_limits()

    # acting

    def _apply(self, command: Command) -> None:
        try:
            if not isinstance(command, Off):
                self._energise(command)
            elif self._device.on:
                self._open_circuit()
        except PermitWithdrawn:
            self._open_circuit()
        except PotentiostatError as error:
            self._device_failed(error)
        if self._executor is not None:
            self._executor.commanded(time.monotonic())

    def _energise(self, command: Command) -> None:
        if isinstance(command, Off) or self._executor is None:
            return
        if not self._device.on:
            self._clock.restart()
        self._device.energise(command, self._executor.bounds(), self._permit)
        galvanostatic = isinstance(command, SetCurrent)
        mode = CellMode.GALVANOSTATIC if galvanostatic else CellMode.POTENTIOSTATIC
        current_ma = command.current_ma if isinstance(command, SetCurrent) else math.nan
        self._obedience.expect(mode, current_ma, time.monotonic())

    def _open_circuit(self) -> bool:
        """Switch off as part of the experiment or on order; a device that does not confirm it counts as lost."""
        self._device.doubt()
        confirmed = self._device.switch_off()
        if confirmed:
            self._obedience.expect(CellMode.OFF, 0.0, time.monotonic())
        elif self._state != "lost":
            self._lose(CellReason.REFUSED, "switching the cell off failed", math.nan)
        return confirmed

    def _stop(
        self,
        reason: Reason,
        detail: str,
        kind: EventKind,
        magnitude: float = math.nan,
        sample: CellSample | None = None,
    ) -> None:
        """Cell off first, then everything else: experiment ended, event recorded, state `tripped` (or `lost`)."""
        self._permits.withdraw()
        confirmed = self._device.switch_off()
        self._obedience.expect(CellMode.OFF, 0.0, time.monotonic())
        self._reason = self._cause = reason
        self._detail = f"{detail}; the cell was switched off"
        if not confirmed:
            self._reason = CellReason.IN_DOUBT
            self._detail = f"{detail}; the potentiostat did not confirm that the cell is off"
        self._state = "tripped" if confirmed and self._state != "lost" else "lost"
        self._end_experiment(ExperimentEnd(self._reason.code, self._detail))
        self._journal.event(kind, self._detail, magnitude, sample)

    def _lose(self, reason: Reason, detail: str, magnitude: float) -> None:
        self._state = "lost"
        self._stop(reason, detail, EventKind.CELL_LOST, magnitude)

    def _device_failed(self, error: PotentiostatError) -> None:
        if self._state == "lost":
            return
        if error.reason in (CellReason.REFUSED, CellReason.LIMIT):
            self._stop(error.reason, error.detail, EventKind.CELL_LIMIT)
        else:
            self._lose(error.reason, error.detail, math.nan)

    def _end_experiment(self, end: ExperimentEnd) -> None:
        if self._executor is not None:
            self._journal.end(end)
        self._executor, self._permit = None, None
        self._limits = self._configured

    # reporting

    def take_report(self) -> Report:
        """Everything new since the last call; the call shows that somebody watches."""
        self._watched_s = time.monotonic()
        last = self._journal.last
        values: dict[str, Any] = self._journal.values() | {
            "device_limits": self._device.has_limits,
            "limits": self._limits.model_dump(),
            "recording_ended": self._exhausted,
        }
        if self._executor is not None:
            values |= self._executor.values(last.voltage_v if last else math.nan)
        device = self._device
        return self._journal.take(
            Snapshot(self._state, self._reason, self._cause, self._detail, device.in_doubt, device.on, last, values)
        )
