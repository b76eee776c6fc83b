"""A potentiostat and its cell on the scenario's clock, with every fault, and the truth of what the cell went through.

Adapted to days rather than seconds: nothing happens between two calls, all of it is worked out when one comes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from hw.errors import CellReason, PotentiostatError
from hw.potentiostat.contract import (
    CellMode,
    CellSample,
    DeviceLimits,
    HostLoss,
    Potentiostat,
    PotentiostatInfo,
    StepBounds,
)
from tests.scenarios.schedule import SCHEDULE

CAPACITY_MAH = 1.0
RESISTANCE_KOHM = 0.05
NEVER_S = -1e18
MOST_SAMPLES = 200

INFO = PotentiostatInfo(
    model="scenario", serial="1", max_current_ma=20.0, min_voltage_v=0.0, max_voltage_v=5.0, sample_rate_hz=1.0,
    host_loss=HostLoss.CELL_OFF, host_loss_after_s=5.0, capacity_mah=CAPACITY_MAH,
)  # fmt: skip
FAULTS = ("silent", "unplugged", "refuses_off", "ignores_off", "hangs", "garbled", "stuck_clock", "refuses_on")


@dataclass
class Bench:
    """The device and the cell; outlives any daemon."""

    info: PotentiostatInfo = INFO
    charge_mah: float = 0.5
    mode: CellMode = CellMode.OFF
    until_s: dict[str, float] = field(default_factory=dict)
    """Faults in force, and until when."""
    since_s: float = NEVER_S
    """When the cell was last energised."""
    off_s: float = NEVER_S
    """When it was last switched off."""
    fault_end_s: float = NEVER_S
    """End of the last fault that can keep the daemon from switching off."""
    spoil_v: float = 0.0
    """Added to the voltage that is read."""
    heard_s: float = NEVER_S
    """When a host last let the device know that it lives."""
    looked_s: float = NEVER_S
    """When a host last read it."""
    opened: int = 0
    history: list[tuple[float, str]] = field(default_factory=list)
    """When the circuit was closed and opened, and by whom."""
    _set_ma: float = 0.0
    _set_v: float = 0.0
    _bound_ma: float = 0.0
    _bounds: StepBounds = field(default_factory=StepBounds)
    _commanded_s: float = NEVER_S
    _charged_mah: float = 0.0
    _worked_out_s: float = field(default_factory=lambda: SCHEDULE.now_s)
    _sampled_s: float = field(default_factory=lambda: SCHEDULE.now_s)
    _clock_lag_s: float = 0.0

    def begin(self, fault: str, seconds: float) -> None:
        """Let a fault last."""
        self.work_out()
        self.until_s[fault] = SCHEDULE.now_s + seconds
        if fault not in ("stuck_clock", "refuses_on"):
            self.fault_end_s = max(self.fault_end_s, SCHEDULE.now_s + seconds)

    def has(self, fault: str) -> bool:
        """Whether a fault is in force."""
        return SCHEDULE.now_s < self.until_s.get(fault, NEVER_S)

    def hang(self) -> None:
        """Return only once the device answers again."""
        while self.has("hangs"):
            SCHEDULE.wait(min(self.until_s["hangs"], SCHEDULE.now_s + 5.0 / self.info.sample_rate_hz))
            self.work_out()

    def touch(self) -> None:
        """Somebody switches the cell on at the device's own front panel."""
        self.work_out()
        self._energise(CellMode.GALVANOSTATIC, "front panel", 0.1)

    @property
    def energised(self) -> bool:
        """Whether current can flow now."""
        self.work_out()
        return self.mode is not CellMode.OFF

    def work_out(self) -> None:
        """Bring the cell to the present, with what the device does by itself on the way."""
        now_s = SCHEDULE.now_s
        if self.mode is not CellMode.OFF:
            ends_s, why = self._own_end()
            self._charge(min(now_s, ends_s) - self._worked_out_s)
            if ends_s <= now_s:
                self._open(why, ends_s)
        self._worked_out_s = now_s

    def _own_end(self) -> tuple[float, str]:
        """When the device opens the circuit by itself, as it stands, and why."""
        if self.info.host_loss is HostLoss.CELL_OFF:
            assert self.info.host_loss_after_s is not None
            return max(self.heard_s, self.since_s) + self.info.host_loss_after_s, "host loss"
        longest_s = self._bounds.longest_s or self.info.host_loss_bound_s or 3600.0
        return self._commanded_s + longest_s, "end of script"

    def _charge(self, dt_s: float) -> None:
        moved_mah = self.current_ma() * max(0.0, dt_s) / 3600.0
        self.charge_mah = min(1.6, max(-0.6, self.charge_mah + moved_mah))

    def _energise(self, mode: CellMode, by: str, current_ma: float = 0.0, voltage_v: float = 0.0) -> None:
        if self.mode is CellMode.OFF:
            self.since_s = SCHEDULE.now_s
            self.history.append((SCHEDULE.now_s, f"on by {by}"))
        self.mode, self._set_ma, self._set_v = mode, current_ma, voltage_v
        self._commanded_s = self.heard_s = SCHEDULE.now_s

    def _open(self, why: str, at_s: float) -> None:
        if self.mode is not CellMode.OFF:
            self.mode, self.off_s = CellMode.OFF, at_s
            self.history.append((at_s, f"off by {why}"))

    @property
    def open_circuit_v(self) -> float:
        return 3.0 + 1.2 * self.charge_mah / CAPACITY_MAH

    def current_ma(self) -> float:
        if self.mode is CellMode.OFF:
            return 0.0
        if self.mode is CellMode.GALVANOSTATIC:
            return self._set_ma
        wanted = (self._set_v - self.open_circuit_v) / RESISTANCE_KOHM
        return max(-self._bound_ma, min(self._bound_ma, wanted))

    def sample(self, at_s: float) -> CellSample:
        current_ma = self.current_ma()
        voltage_v = self.open_circuit_v + RESISTANCE_KOHM * current_ma + self.spoil_v
        if self.has("garbled"):
            voltage_v = math.nan
        device_s = self.until_s["stuck_clock"] - 1e5 if self.has("stuck_clock") else at_s
        return CellSample(device_s, at_s, voltage_v, current_ma, self.mode)

    def due(self) -> list[CellSample]:
        """Samples since the last call; what overran the device's memory is gone."""
        self.work_out()
        interval_s = 1.0 / self.info.sample_rate_hz
        waiting = int((SCHEDULE.now_s - self._sampled_s) / interval_s)
        if waiting > MOST_SAMPLES:
            self._sampled_s += (waiting - MOST_SAMPLES) * interval_s
            waiting = MOST_SAMPLES
        samples = []
        for _ in range(waiting):
            self._sampled_s += interval_s
            samples.append(self.sample(self._sampled_s))
        return samples


class Driver(Potentiostat):
    """A driver of the bench, as the daemon opens it."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    def _call(self, name: str) -> Bench:
        bench = self.bench
        bench.work_out()
        bench.hang()
        if bench.has("unplugged"):
            raise PotentiostatError(CellReason.UNPLUGGED, f"the scenario unplugged the potentiostat ({name})")
        return bench

    def open(self) -> PotentiostatInfo:
        bench = self._call("open")
        bench.opened += 1
        bench._sampled_s = SCHEDULE.now_s
        return bench.info

    def mode(self) -> CellMode:
        return self._call("mode").mode

    def set_limits(self, limits: DeviceLimits) -> bool:
        self._call("set_limits")
        return False

    def set_bounds(self, bounds: StepBounds) -> bool:
        self._call("set_bounds")._bounds = bounds
        return True

    def set_current(self, current_ma: float) -> None:
        self._on("set_current")._energise(CellMode.GALVANOSTATIC, "the daemon", current_ma)

    def set_voltage(self, voltage_v: float, max_current_ma: float) -> None:
        bench = self._on("set_voltage")
        bench._bound_ma = max_current_ma
        bench._energise(CellMode.POTENTIOSTATIC, "the daemon", 0.0, voltage_v)

    def _on(self, name: str) -> Bench:
        bench = self._call(name)
        if bench.has("refuses_on"):
            raise PotentiostatError(CellReason.REFUSED, "the scenario's potentiostat refuses to switch on")
        return bench

    def cell_off(self) -> None:
        bench = self._call("cell_off")
        if bench.has("refuses_off"):
            raise PotentiostatError(CellReason.REFUSED, "the scenario's potentiostat refuses to switch off")
        if not bench.has("ignores_off"):
            bench._open("the daemon", SCHEDULE.now_s)

    def read(self, timeout_s: float) -> list[CellSample]:
        bench = self._call("read")
        bench.looked_s = SCHEDULE.now_s
        samples = bench.due()
        if not samples or bench.has("silent"):
            next_s = bench._sampled_s + 1.0 / bench.info.sample_rate_hz
            SCHEDULE.wait(
                SCHEDULE.now_s + timeout_s if bench.has("silent") else min(SCHEDULE.now_s + timeout_s, next_s)
            )
            samples = bench.due()
        if bench.has("unplugged"):
            raise PotentiostatError(CellReason.UNPLUGGED, "the scenario unplugged the potentiostat (read)")
        return [] if bench.has("silent") else samples

    def keep_alive(self) -> None:
        self._call("keep_alive").heard_s = SCHEDULE.now_s

    def close(self) -> None:
        bench = self.bench
        bench.work_out()
        bench.hang()
        if not any(bench.has(fault) for fault in ("unplugged", "refuses_off", "ignores_off")):
            bench._open("closing", SCHEDULE.now_s)


def kinds() -> list[PotentiostatInfo]:
    """Devices that the scenarios choose from."""
    scripted = replace(INFO, host_loss=HostLoss.CONTINUE_TO_END, host_loss_after_s=None, host_loss_bound_s=900.0)
    return [INFO, replace(INFO, sample_rate_hz=4.0), scripted]
