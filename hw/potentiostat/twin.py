"""A simulated potentiostat with its cell: the electrode's physics runs here, in a thread, in real or faster time."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from pathlib import Path

from pydantic import Field

from hw.errors import CellReason, PotentiostatError
from hw.potentiostat.contract import (
    CellMode,
    CellSample,
    DeviceLimits,
    HostLoss,
    Potentiostat,
    PotentiostatInfo,
)
from hw.twin.electrode import Electrode
from hw.twin.sample import CrowdedError, make_sample, stream
from hw.twin.settings import NotNegative, Positive, SampleOptions
from hw.twin.world import WorldState, WorldWriter

MAX_CURRENT_MA = 20.0
MIN_VOLTAGE_V, MAX_VOLTAGE_V = 0.0, 5.0
QUEUE_SAMPLES = 20_000  # over six minutes at the highest sample rate
HOST_SAMPLE_RATE_HZ = 50.0  # more than a host can use, however fast simulated time runs
LONGEST_LEAP_S = 5.0  # host seconds to catch up with after a suspend: the rest is skipped
_MODES = (CellMode.OFF, CellMode.GALVANOSTATIC, CellMode.POTENTIOSTATIC)
_NOISE = 11  # sub-stream of the seed


class TwinPotentiostat(Potentiostat):
    """Drives a simulated cell and shows it to the simulated camera through the file `world`.

    The clock starts at 0 when opened and runs `speed` times as fast as the host's; so do the samples' times. The device
    enforces limits in its own physics step and switches the cell off when its host is silent for `host_loss_after_s`.
    """

    class Settings(SampleOptions):
        """Options of the simulated potentiostat, and of the sample that is its cell."""

        world: str = ""
        """Path of the file that the simulated camera attaches to; empty: nobody looks."""
        speed: Positive = 1.0
        """Simulated seconds that pass in one second of the host."""
        sample_rate_hz: Positive = 10.0
        """Samples a simulated second; fewer when that were more than 50 in a second of the host."""
        host_loss_after_s: Positive = 5.0
        """Host seconds without a sign of life until the device switches the cell off."""
        step_s: float = Field(default=0.01, ge=0.002, le=0.1)
        """Host time between two steps of the physics."""
        voltage_noise_v: NotNegative = 5e-5
        current_noise_ma: NotNegative = 1e-4
        found_current_ma: float = 0.0
        """Current that flows already when the device is opened, as a cell left on would show."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Condition()
        self._samples: deque[CellSample] = deque(maxlen=QUEUE_SAMPLES)
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._writer: WorldWriter | None = None
        self.samples_lost = 0
        """Samples that nobody fetched before the queue was full."""

    def open(self) -> PotentiostatInfo:
        """Create the cell, and the world file, and start its time."""
        if self._thread is not None:
            raise PotentiostatError(CellReason.REFUSED, "the simulated potentiostat is open already")
        settings = self._settings
        sample_options = SampleOptions(**{name: getattr(settings, name) for name in SampleOptions.model_fields})
        try:
            self._electrode = Electrode(make_sample(sample_options))
        except CrowdedError as error:
            raise PotentiostatError(CellReason.NOT_FOUND, f"the simulated cell cannot be made: {error}") from None
        self._noise = stream(settings.seed, _NOISE)
        self._electrode.advance(1e-3)  # compiles the physics before its clock starts
        self._electrode.t_s = 0.0
        clock_id = f"twin-{settings.seed}-{os.getpid()}-{time.monotonic_ns():x}"
        rate_hz = min(settings.sample_rate_hz, HOST_SAMPLE_RATE_HZ / settings.speed)
        self._period_s = 1.0 / rate_hz
        self._next_sample_s = 0.0
        self._last_life_t = self._anchor_t = time.monotonic()
        if settings.found_current_ma:
            self._electrode.set_current(settings.found_current_ma)
        if settings.world:
            try:
                self._writer = WorldWriter(Path(settings.world), sample_options, clock_id, self._state())
            except OSError as error:
                raise PotentiostatError(
                    CellReason.NOT_FOUND, f"the simulated world at {settings.world} cannot be made: {error}"
                ) from None
        self._stop.clear()
        self._thread = threading.Thread(target=self._live, name="twin-electrode")
        self._thread.start()
        return PotentiostatInfo(
            model="Simulated potentiostat",
            serial=f"twin-{settings.seed}",
            max_current_ma=MAX_CURRENT_MA,
            min_voltage_v=MIN_VOLTAGE_V,
            max_voltage_v=MAX_VOLTAGE_V,
            sample_rate_hz=rate_hz,
            host_loss=HostLoss.CELL_OFF,
            host_loss_after_s=settings.host_loss_after_s,
            capacity_mah=settings.capacity_mah,
            clock_id=clock_id,
            clock_rate=settings.speed,
        )

    def mode(self) -> CellMode:
        """What is done to the cell at this moment."""
        with self._lock:
            self._require_open()
            self._catch_up()
            return _MODES[self._electrode.mode]

    def set_limits(self, limits: DeviceLimits) -> bool:
        """Enforced at every step of the physics, before the charge passes."""
        with self._lock:
            self._require_open()
            self._catch_up()
            self._electrode.set_limits(limits.min_voltage_v, limits.max_voltage_v, limits.max_current_ma)
        return True

    def set_current(self, current_ma: float) -> None:
        """Refused beyond +-20 mA."""
        if not abs(current_ma) <= MAX_CURRENT_MA:
            raise PotentiostatError(
                CellReason.REFUSED, f"{current_ma:g} mA is outside of the device's range of +-{MAX_CURRENT_MA:g} mA"
            )
        with self._lock:
            self._command()
            self._electrode.set_current(current_ma)

    def set_voltage(self, voltage_v: float, max_current_ma: float) -> None:
        """Refused outside of 0 to 5 V; the current is bounded by `max_current_ma`, itself at most 20 mA."""
        if not MIN_VOLTAGE_V <= voltage_v <= MAX_VOLTAGE_V:
            raise PotentiostatError(
                CellReason.REFUSED,
                f"{voltage_v:g} V is outside of the device's range of {MIN_VOLTAGE_V:g} to {MAX_VOLTAGE_V:g} V",
            )
        if not 0 < max_current_ma <= MAX_CURRENT_MA:
            raise PotentiostatError(
                CellReason.REFUSED, f"a current bound of {max_current_ma:g} mA is outside of 0 to {MAX_CURRENT_MA:g} mA"
            )
        with self._lock:
            self._command()
            self._electrode.set_voltage(voltage_v, max_current_ma)

    def cell_off(self) -> None:
        """Opens the circuit at once, even when the device is about to be closed."""
        with self._lock:
            self._require_open()
            self._catch_up()
            self._electrode.rest()
            self._last_life_t = time.monotonic()

    def read(self, timeout_s: float) -> list[CellSample]:
        """The samples taken since the last call."""
        with self._lock:
            self._require_open()
            self._lock.wait_for(lambda: bool(self._samples) or self._stop.is_set(), timeout_s)
            samples = list(self._samples)
            self._samples.clear()
        return samples

    def keep_alive(self) -> None:
        """Sets the host-loss timer back."""
        self._last_life_t = time.monotonic()

    def close(self) -> None:
        """Cell off, the physics ended, the world file removed."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        with self._lock:
            self._electrode.rest()
            self._stop.set()
            self._lock.notify_all()
        thread.join()
        if self._writer is not None:
            with contextlib.suppress(OSError):
                self._writer.close()
            self._writer = None

    # -- the device's own life ------------------------------------------------------------

    def _require_open(self) -> None:
        if self._thread is None:
            raise PotentiostatError(CellReason.UNPLUGGED, "the simulated potentiostat is not open")

    def _command(self) -> None:
        self._require_open()
        self._catch_up()
        self._last_life_t = time.monotonic()

    def _live(self) -> None:
        while not self._stop.wait(self._settings.step_s):
            with self._lock:
                self._catch_up()
                self._watch_host()
                if self._writer is not None:
                    self._writer.publish(self._state())

    def _watch_host(self) -> None:
        silent_s = time.monotonic() - self._last_life_t
        if silent_s > self._settings.host_loss_after_s and self._electrode.mode != 0:
            self._electrode.rest()

    def _catch_up(self) -> None:
        """Bring the electrode to the present, sampling on the way."""
        now = time.monotonic()
        due_s = (now - self._anchor_t) * self._settings.speed
        behind_s = due_s - self._electrode.t_s - LONGEST_LEAP_S * self._settings.speed
        if behind_s > 0:  # the host slept: simulated time slept with it
            self._anchor_t += behind_s / self._settings.speed
            due_s -= behind_s
        while self._next_sample_s <= due_s:
            self._electrode.advance(max(self._next_sample_s - self._electrode.t_s, 0.0))
            self._sample(now - (due_s - self._next_sample_s) / self._settings.speed)
            self._next_sample_s += self._period_s
        self._electrode.advance(max(due_s - self._electrode.t_s, 0.0))

    def _sample(self, host_t_s: float) -> None:
        settings, electrode = self._settings, self._electrode
        noise = self._noise.standard_normal(2)
        self.samples_lost += len(self._samples) == self._samples.maxlen
        mode = _MODES[electrode.mode]
        current_ma = electrode.current_ma + settings.current_noise_ma * noise[1] if mode != CellMode.OFF else 0.0
        self._samples.append(
            CellSample(
                device_t_s=self._next_sample_s,
                host_t_s=host_t_s,
                voltage_v=float(electrode.voltage_v + settings.voltage_noise_v * noise[0]),
                current_ma=float(current_ma),
                mode=mode,
            )
        )
        self._lock.notify_all()

    def _state(self) -> WorldState:
        electrode = self._electrode
        t_s = electrode.t_s
        return WorldState(
            t_s=t_s,
            host_t_s=self._anchor_t + t_s / self._settings.speed,
            speed=self._settings.speed,
            mode=electrode.mode,
            voltage_v=electrode.voltage_v,
            current_ma=electrode.current_ma,
            closed=False,
            particles=electrode.state,
        )
