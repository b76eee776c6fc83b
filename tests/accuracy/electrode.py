"""A small electrode of its own: particles share a cell, their contrasts are counted in electrons, truth is at hand.

Butler-Volmer particles (alpha = 1/2) of a solid solution in parallel: dx/dt = k g(x) 2 sinh(F (V - U(x))/2RT). Steps
are linearly implicit. Nothing here is shared with the simulated instrument.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from daemon.cell.samples import CellRow
from daemon.engine.measures import Detection, MaskSet, MeasureBatch
from daemon.photometry.science import Science, ScienceSettings
from daemon.photometry.update import ScienceUpdate

F_2RT = 96485.0 / (2 * 8.314 * 298.0)
CAPACITY_MAH = 1.0
SAFE_DX = 0.02


def open_v(x: np.ndarray | float) -> np.ndarray:
    """Open-circuit voltage over the charge fraction: a layered oxide's slope with a bend."""
    x = np.asarray(x, float)
    return 3.55 + 0.55 * x + 0.06 * np.tanh((x - 0.35) / 0.12)


def exchange(x: np.ndarray) -> np.ndarray:
    """g(x), 1 at half charge."""
    return 2.0 * np.sqrt(np.clip(x * (1.0 - x), 1e-4, None))


@dataclass(frozen=True)
class Step:
    """One step: a C-rate (positive charges) until a voltage, or a voltage for a time; `rest_s` after it."""

    c_rate: float = 0.0
    until_v: float = np.nan
    hold_v: float = np.nan
    duration_s: float = np.inf
    frame_s: float = 20.0
    """Exposures are this far apart."""


@dataclass
class Electrode:
    """P particles; arrays (P,). What changes from cycle to cycle is set from outside between steps."""

    k_per_h: np.ndarray
    share: np.ndarray
    """Of the capacity; sums to 1."""
    x: np.ndarray
    discharge_gain: np.ndarray | float = 1.0
    """Rate constant on discharge over that on charge."""
    ohm_v_per_c: float = 0.0
    shift_v: np.ndarray | float = 0.0
    """Each particle's own equilibrium potential over that of its charge."""

    def advance(self, dt_s: float, c_rate: float | None, hold_v: float | None) -> tuple[float, float]:
        """One step of time under a current (`c_rate`) or a voltage: (voltage, C-rate that flowed)."""
        left_s, volts, passed = dt_s, np.nan, 0.0
        while left_s > 1e-9:
            volts, rate, gain, bend = self._rates(c_rate, hold_v)
            part_s = min(left_s, max(SAFE_DX * 3600.0 / max(float(np.abs(rate).max()), 1e-9), 0.02 * dt_s))
            h = part_s / 3600.0
            damped = h / (1.0 + gain * bend * h)
            if c_rate is not None:  # the potential moves within the step so that the current stays
                rate = rate + gain * (c_rate * h - self.share @ (rate * damped)) / (self.share @ (gain * damped))
            dx = np.clip(self.x + rate * damped, 1e-3, 1.0 - 1e-3) - self.x
            self.x = self.x + dx
            passed += float(self.share @ dx)
            left_s -= part_s
        return volts, passed * 3600.0 / dt_s

    def _rates(self, c_rate: float | None, hold_v: float | None) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
        u = F_2RT * (open_v(self.x) + self.shift_v)
        k = self.k_per_h * exchange(self.x)
        if hold_v is not None:
            current = 0.0
            for _ in range(4 if self.ohm_v_per_c else 1):
                e = F_2RT * (hold_v - self.ohm_v_per_c * current) - u
                forward = np.where(e > 0, k, k * self.discharge_gain)
                rate = 2.0 * forward * np.sinh(np.clip(e, -12, 12))
                current = 0.5 * current + 0.5 * float(self.share @ rate)
            volts = hold_v
        else:
            assert c_rate is not None
            gain = np.where(c_rate < 0, self.discharge_gain, 1.0)
            middle = float(u.mean())
            p = float((self.share * gain * k) @ np.exp(middle - u))
            q = float((self.share * gain * k) @ np.exp(u - middle))
            b = (c_rate + np.sqrt(c_rate**2 + 4.0 * p * q)) / (2.0 * p)
            e = np.log(b) + middle - u
            rate = 2.0 * gain * k * np.sinh(np.clip(e, -12, 12))
            forward = gain * k
            volts = float((np.log(b) + middle) / F_2RT) + self.ohm_v_per_c * c_rate
        step = 1e-3
        bend = (open_v(self.x + step) - open_v(self.x - step)) / (2 * step)
        return volts, rate, 2.0 * forward * np.cosh(np.clip(e, -12, 12)) * F_2RT, bend


@dataclass(frozen=True)
class HalfTruth:
    """What one step did, noiseless: (P,) each."""

    start_s: float
    end_s: float
    t_s: np.ndarray
    x: np.ndarray
    """(n, P) charge fractions."""

    def crossing_s(self, share: float) -> np.ndarray:
        """When each particle passes a share of its own swing from the start to the farthest point."""
        way = self.x - self.x[0]
        far = np.take_along_axis(way, np.abs(way).argmax(axis=0)[None], axis=0)[0]
        progress = way / far
        place = np.maximum((progress >= share).argmax(axis=0), 1)
        columns = np.arange(progress.shape[1])
        low, high = progress[place - 1, columns], progress[place, columns]
        return self.t_s[place - 1] + (share - low) / (high - low) * (self.t_s[place] - self.t_s[place - 1])

    def middle_s(self, weights: np.ndarray, members: np.ndarray) -> float:
        """When the weighted mean progress of `members` reaches half of its span."""
        way = (self.x - self.x[0])[:, members]
        far = np.take_along_axis(way, np.abs(way).argmax(axis=0)[None], axis=0)[0]
        mean = (way / far) @ (weights[members] / weights[members].sum())
        place = int((mean >= 0.5 * mean.max()).argmax())
        low, high = mean[place - 1], mean[place]
        return float(
            self.t_s[place - 1] + (0.5 * mean.max() - low) / (high - low) * (self.t_s[place] - self.t_s[place - 1])
        )


@dataclass
class Optics:
    """Contrast over charge, and the electrons it is counted with; (P,) each."""

    swing: np.ndarray
    """Contrast at full charge; either sign."""
    bend: np.ndarray
    """-0.3 to 0.3: departure from a straight line."""
    flux0_e: np.ndarray
    area_px: np.ndarray
    noise_factor: float = 1.2
    """Over the photons of the particle alone: its ring and read noise."""

    def contrast(self, x: np.ndarray) -> np.ndarray:
        """(..., P) contrasts at fractions x."""
        return self.swing * (x + self.bend * x * (1.0 - x))

    @classmethod
    def draw(cls, rng: np.random.Generator, count: int, swing: tuple[float, float] = (0.03, 0.3)) -> Optics:
        """Noise as radii of 5 to 16 px at 18 000 e/px have it: 0.04 to 0.12 % an exposure."""
        radius = rng.uniform(5, 16, count)
        area = np.pi * radius**2
        sign = np.where(rng.random(count) < 0.5, 1.0, -1.0)
        size = np.exp(rng.uniform(np.log(swing[0]), np.log(swing[1]), count))
        return cls(sign * size, rng.uniform(-0.3, 0.3, count), 12_000.0 * area, area)


@dataclass
class Recorder:
    """Frames and cell samples of a run as the daemon would get them."""

    optics: Optics
    rng: np.random.Generator
    residual: float = 1e-4
    """Standard deviation of each particle's own wander of an hour that normalisation leaves, and of a common one."""
    drift_per_h: np.ndarray | float = 0.0
    """(P,) steady change of contrast."""
    t_s: list[float] = field(default_factory=list)
    contrast: list[np.ndarray] = field(default_factory=list)
    layers: list[np.ndarray] = field(default_factory=list)
    rows: list[CellRow] = field(default_factory=list)
    detections: list[Detection] = field(default_factory=list)
    now_s: float = 0.0
    charge_mah: float = 0.0

    def __post_init__(self) -> None:
        self.count = len(self.optics.swing)
        self._wander = self.rng.normal(0, self.residual, self.count)
        self._common = 0.0
        self._brightness = np.ones(self.count)

    def cell(self, dt_s: float, volts: float, c_rate: float, kind: str, number: int) -> None:
        """A sample at the end of `dt_s`."""
        self.now_s += dt_s
        self.charge_mah += c_rate * dt_s / 3600.0 * CAPACITY_MAH
        noise = self.rng.normal(0, 2e-4)
        self.rows.append(
            CellRow(self.now_s, self.now_s, volts + noise, c_rate * CAPACITY_MAH, 0, number, kind, self.charge_mah)
        )

    def expose(self, contrast: np.ndarray, layers: np.ndarray, dt_s: float) -> None:
        """One exposure of (P,) and (P, 4) true contrasts, `dt_s` after the last."""
        keep = np.exp(-dt_s / 3600.0)
        fresh = np.sqrt(1 - keep**2) * self.residual
        self._wander = keep * self._wander + self.rng.normal(0, fresh, self.count)
        self._common = keep * self._common + self.rng.normal(0, fresh)
        seen = self._wander + self._common + self.drift_per_h * self.now_s / 3600.0
        self.t_s.append(self.now_s)
        bright = self._brightness
        self.contrast.append(bright * (1.0 + contrast + seen) - 1.0)
        self.layers.append(bright[:, None] * (1.0 + layers + seen[:, None]) - 1.0)

    def crack(self, index: int, step: float, *, seen: bool) -> None:
        """A particle's brightness steps by a share from now on; the engine's detector tells it or not."""
        self._brightness[index] *= 1.0 + step
        if seen:
            frame = len(self.t_s)
            self.detections.append(Detection(index, frame, frame, step, 1e-3, 100.0, 0.0))

    def masks(self) -> MaskSet:
        """Particles 1, 2, ... with their areas."""
        labels = np.zeros((4, self.count), np.int32)
        labels[0] = np.arange(1, self.count + 1)
        place = np.arange(self.count, dtype=float)
        return MaskSet(labels, np.arange(1, 1 + self.count), place, place, {"area_px": self.optics.area_px}, 1.5, None)

    def batches(self, size: int = 64) -> Iterator[MeasureBatch]:
        """Poisson counts of all exposures."""
        optics, factor = self.optics, self.optics.noise_factor
        for start in range(0, len(self.t_s), size):
            stop = min(start + size, len(self.t_s))
            t_s = np.array(self.t_s[start:stop])
            mean = optics.flux0_e * (1.0 + np.array(self.contrast[start:stop]))
            background = (factor**2 - 1.0) * optics.flux0_e
            flux = self.rng.poisson(mean + background) - background
            quarter = optics.flux0_e[:, None] / 4.0
            parts = self.rng.poisson(quarter * (1.0 + np.array(self.layers[start:stop])) + background[:, None] / 4.0)
            n, zeros = stop - start, np.zeros((stop - start, self.count))
            batch = MeasureBatch(
                frame=np.arange(start, stop), block_id=np.arange(start, stop), t_s=t_s, host_t_s=t_s,
                drift_y_px=np.zeros(n), drift_x_px=np.zeros(n), drift_sigma_px=np.full(n, 1e-3),
                illumination=np.ones(n), focus=np.ones(n), flags=np.zeros(n, np.uint32), flux_e=flux,
                flux_sigma_e=np.sqrt(mean + background), layer_flux_e=parts - background[:, None] / 4.0,
                layer_sigma_e=np.sqrt(quarter + background[:, None] / 4.0) + np.zeros((n, self.count, 4)),
                centroid_y_px=zeros, centroid_x_px=zeros, particle_flags=np.zeros((n, self.count), np.uint16),
                detections=[found for found in self.detections if start <= found.detected_frame < stop],
            )  # fmt: skip
            if stop > 5:
                batch.baseline_flux_e = optics.flux0_e * (1.0 + self.contrast[0])
                batch.baseline_layer_flux_e = np.repeat(batch.baseline_flux_e[:, None] / 4.0, 4, axis=1)
            yield batch


def drive(electrode: Electrode, recorder: Recorder, step: Step, number: int, layer_gain: np.ndarray | None = None,
          swing_gain: np.ndarray | float = 1.0) -> HalfTruth:  # fmt: skip
    """Run one step to its end, exposing as it goes. `layer_gain` (P, 4): how far each layer follows."""
    follow = np.ones((recorder.count, 4)) if layer_gain is None else layer_gain
    times, states, start_s = [recorder.now_s], [electrode.x.copy()], recorder.now_s
    kind = "rest" if step.c_rate == 0 and np.isnan(step.hold_v) else "hold" if step.c_rate == 0 else ""
    while recorder.now_s - start_s < step.duration_s - 1e-6:
        holding = np.isfinite(step.hold_v)
        volts, c_rate = electrode.advance(
            step.frame_s, None if holding else step.c_rate, step.hold_v if holding else None
        )
        if not holding and np.isfinite(step.until_v) and (volts - step.until_v) * np.sign(step.c_rate) >= 0:
            step = Step(step.c_rate, duration_s=recorder.now_s - start_s + step.frame_s, frame_s=step.frame_s)
        recorder.cell(step.frame_s, volts, c_rate, kind or ("charge" if c_rate > 0 else "discharge"), number)
        own = recorder.optics.contrast(electrode.x) * swing_gain
        recorder.expose(own * follow.mean(axis=1), own[:, None] * follow, step.frame_s)
        times.append(recorder.now_s)
        states.append(electrode.x.copy())
    return HalfTruth(start_s, recorder.now_s, np.array(times), np.array(states))


@dataclass
class Outcome:
    """Everything the science told, by the tables' keys."""

    science: Science
    cycles: dict[tuple[int, int, str], dict]
    health: dict[tuple[int, int], dict]
    events: list
    ensemble: list[dict]
    rates: list[dict]
    calibrations: list[dict]
    """The last of each particle."""
    states: dict[int, str]
    """The last state of each particle,"""
    first_states: dict[int, str]
    """and that after the first half."""

    def column(self, name: str, cycle: int, half: str) -> np.ndarray:
        """(P,) one column of one half."""
        keys = sorted(key for key in self.cycles if key[1:] == (cycle, half))
        return np.array([self.cycles[key][name] for key in keys], float)


def science_of(
    recorder: Recorder, capacity_mah: float | None = CAPACITY_MAH, science: type[Science] = Science
) -> Outcome:
    """The run through the product's science, cell and frames in step."""
    running = science(recorder.masks(), ScienceSettings(capacity_mah=capacity_mah))
    updates: list[ScienceUpdate] = []
    place, rows, judged = 0, recorder.rows, 0
    for batch in recorder.batches():
        upto = place
        while upto < len(rows) and rows[upto].t_s <= batch.t_s[-1]:
            upto += 1
        running.add_cell(rows[place:upto])
        place = upto
        updates.append(running.add(batch))
        if not judged and running.summary()["active_fraction"] == running.summary()["active_fraction"]:
            judged = len(updates)
    running.add_cell(rows[place:])
    updates.append(running.finish())
    return Outcome(
        running,
        {(row["particle_id"], row["cycle"], row["half"]): row for update in updates for row in update.cycles},
        {(row["particle_id"], row["cycle"]): row for update in updates for row in update.health},
        [event for update in updates for event in update.events],
        [row for update in updates for row in update.ensemble],
        [row for update in updates for row in update.rates],
        list({row["particle_id"]: row for update in updates for row in update.calibrations}.values()),
        _states(updates),
        _states(updates[:judged]),
    )


def _states(updates: list[ScienceUpdate]) -> dict[int, str]:
    return {row["particle_id"]: row["state"] for update in updates for row in update.particles}
