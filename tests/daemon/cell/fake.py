"""A potentiostat with a small cell behind it, and every fault a test can ask for."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from hw.errors import CellReason, PotentiostatError
from hw.potentiostat.contract import (
    CellMode,
    CellSample,
    DeviceLimits,
    HostLoss,
    Potentiostat,
    PotentiostatInfo,
)

INFO = PotentiostatInfo(
    model="fake",
    serial="1",
    max_current_ma=20.0,
    min_voltage_v=0.0,
    max_voltage_v=5.0,
    sample_rate_hz=0.1,
    host_loss=HostLoss.CELL_OFF,
    host_loss_after_s=5.0,
    capacity_mah=1.0,
    clock_rate=1000.0,
)
CAPACITY_MAH = 1.0
RESISTANCE_KOHM = 0.05


@dataclass
class Bench:
    """The cell and what connects it to the world; outlives any driver object that is opened on it."""

    info: PotentiostatInfo = INFO
    charge_mah: float = 0.5
    mode: CellMode = CellMode.OFF
    set_ma: float = 0.0
    set_v: float = 0.0
    bound_ma: float = 0.0
    device_t_s: float = 0.0
    calls: list[str] = field(default_factory=list)
    """Name of every call, in order; energising ones with their value."""
    failures: dict[str, deque[Exception]] = field(default_factory=dict)
    """Exceptions that the next calls of a name raise, one each."""
    hangs: dict[str, threading.Event] = field(default_factory=dict)
    """A call of this name waits for the event."""
    silent: bool = False
    unplugged: bool = False
    stuck_clock: bool = False
    ignores_off: bool = False
    """Confirms to be off and goes on."""
    spoil: Callable[[CellSample], CellSample] = lambda sample: sample
    opened: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    _sampled_s: float = math.nan

    def fail(self, name: str, *errors: Exception) -> None:
        self.failures.setdefault(name, deque()).extend(errors)

    def hang(self, name: str) -> threading.Event:
        """Make calls of `name` wait; returns what frees them."""
        return self.hangs.setdefault(name, threading.Event())

    def enter(self, name: str, shown: str = "") -> None:
        with self.lock:
            self.calls.append(shown or name)
        if name in self.hangs:
            self.hangs[name].wait(20.0)
        if self.failures.get(name):
            raise self.failures[name].popleft()
        if self.unplugged and name != "close":
            raise PotentiostatError(CellReason.UNPLUGGED, f"the fake was unplugged ({name})")

    @property
    def energised(self) -> bool:
        return self.mode is not CellMode.OFF

    @property
    def open_circuit_v(self) -> float:
        return 3.0 + 1.2 * self.charge_mah / CAPACITY_MAH

    def current_ma(self) -> float:
        if self.mode is CellMode.OFF:
            return 0.0
        if self.mode is CellMode.GALVANOSTATIC:
            return self.set_ma
        wanted = (self.set_v - self.open_circuit_v) / RESISTANCE_KOHM
        return max(-self.bound_ma, min(self.bound_ma, wanted))

    def sample(self, host_t_s: float) -> CellSample:
        current_ma = self.current_ma()
        voltage_v = self.open_circuit_v + RESISTANCE_KOHM * current_ma
        return self.spoil(CellSample(self.device_t_s, host_t_s, voltage_v, current_ma, self.mode))

    def advance(self, dt_s: float) -> None:
        """Device seconds."""
        self.charge_mah += self.current_ma() * dt_s / 3600.0
        if not self.stuck_clock:
            self.device_t_s += dt_s

    def due_samples(self) -> list[CellSample]:
        """Those that the device took since the last call, by the host's clock."""
        now_s = time.monotonic()
        if math.isnan(self._sampled_s):
            self._sampled_s = now_s
            return [self.sample(now_s)]
        interval_s = 1 / (self.info.sample_rate_hz * self.info.clock_rate)
        samples = []
        while now_s - self._sampled_s >= interval_s:
            self._sampled_s += interval_s
            self.advance(interval_s * self.info.clock_rate)
            samples.append(self.sample(self._sampled_s))
        return samples


class FakePotentiostat(Potentiostat):
    """A driver for a `Bench`."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    def open(self) -> PotentiostatInfo:
        self.bench.enter("open")
        self.bench.opened += 1
        return self.bench.info

    def mode(self) -> CellMode:
        self.bench.enter("mode")
        return self.bench.mode

    def set_limits(self, limits: DeviceLimits) -> bool:
        self.bench.enter("set_limits")
        return False

    def set_current(self, current_ma: float) -> None:
        self.bench.enter("set_current", f"set_current {current_ma:g}")
        self.bench.mode, self.bench.set_ma = CellMode.GALVANOSTATIC, current_ma

    def set_voltage(self, voltage_v: float, max_current_ma: float) -> None:
        self.bench.enter("set_voltage", f"set_voltage {voltage_v:g}")
        self.bench.mode, self.bench.set_v, self.bench.bound_ma = CellMode.POTENTIOSTATIC, voltage_v, max_current_ma

    def cell_off(self) -> None:
        self.bench.enter("cell_off")
        if not self.bench.ignores_off:
            self.bench.mode = CellMode.OFF

    def read(self, timeout_s: float) -> list[CellSample]:
        self.bench.enter("read")
        deadline_s = time.monotonic() + timeout_s
        while True:
            samples = self.bench.due_samples()
            if samples and not self.bench.silent:
                return samples
            if time.monotonic() >= deadline_s:
                return []
            time.sleep(0.002)

    def keep_alive(self) -> None:
        self.bench.enter("keep_alive")

    def close(self) -> None:
        self.bench.enter("close")
        if not (self.bench.unplugged or self.bench.ignores_off):
            self.bench.mode = CellMode.OFF


class ScriptedPotentiostat(FakePotentiostat):
    """Gives the samples it was handed, one batch a read, whatever is done to it."""

    def __init__(self, bench: Bench, batches: list[list[CellSample]]) -> None:
        super().__init__(bench)
        self.batches = deque(batches)

    def read(self, timeout_s: float) -> list[CellSample]:
        self.bench.enter("read")
        now_s = time.monotonic()
        batch = self.batches.popleft() if self.batches else []
        return [replace(sample, host_t_s=now_s + sample.host_t_s) for sample in batch]


def energising(calls: list[str]) -> list[str]:
    return [call for call in calls if call.startswith(("set_current", "set_voltage"))]
