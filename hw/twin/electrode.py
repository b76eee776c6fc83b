"""The electrode: a sample's chemistry in simulated time, driven by current or voltage, with its cracks."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from hw.twin.cracks import MAX_CRACKS, crack
from hw.twin.sample import Sample
from kernels import electrode as k

MAX_STEP_S = 1.0  # the relaxation of a flat potential is slower still
CRACK_LOOK_S = 1.0  # how late a crack may be noticed, simulated seconds
COMPLIANCE_V = (-0.5, 6.0)
HEAL_CONTENT = 0.25  # lithium content regained until a healing line is gone


@dataclass(frozen=True)
class TruthEvent:
    """Something that happened: `kind` as in the event vocabulary; `particle` -1 for the instrument's own."""

    t_s: float
    kind: str
    particle: int
    magnitude: float = math.nan


@dataclass
class ParticleState:
    """The particles at one time; arrays are (P,). What the world file publishes and optics draws."""

    c: np.ndarray
    """Lithium content, mean of the particle."""
    c_surface: np.ndarray
    c_rate: np.ndarray
    """dc/dt, 1/s."""
    invader: np.ndarray
    """Two-phase: 1 when the poor phase comes in from the edge, 0 when the rich one does."""
    crack_count: np.ndarray
    line: np.ndarray
    """How dark the cracks' lines are: 1 fresh, 0 closed or none."""
    step_gain: np.ndarray
    """Factor on brightness that cracks left."""
    shift_y: np.ndarray
    shift_x: np.ndarray
    """Sum of the fragments' shifts, px."""
    disconnected: np.ndarray
    """1 once electrical contact is lost."""
    crack_t_s: np.ndarray
    """Simulated time of the last crack, NaN without one."""

    FIELDS = (
        "c", "c_surface", "c_rate", "invader", "crack_count", "line", "step_gain", "shift_y", "shift_x", "disconnected",
        "crack_t_s",
    )  # fmt: skip

    def copy(self) -> ParticleState:
        """An independent copy."""
        return ParticleState(*(getattr(self, name).copy() for name in self.FIELDS))


@dataclass
class Electrode:
    """Starts at rest at the options' state of charge. Currents in mA, positive charging the cell; not thread-safe."""

    sample: Sample
    t_s: float = 0.0
    events: list[TruthEvent] = field(default_factory=list)
    """Grows with every crack; whoever reads them may clear it."""

    def __post_init__(self) -> None:
        options, stuff, count = self.sample.options, self.sample.material, self.sample.count
        mean = stuff.content(options.initial_soc)
        start = start_contents(self.sample)
        zeros = np.zeros(count)
        self.state = ParticleState(
            c=start.copy(), c_surface=start.copy(), c_rate=zeros.copy(), invader=(start > 0.5).astype(float),
            crack_count=zeros.copy(), line=zeros.copy(),
            step_gain=np.ones(count), shift_y=zeros.copy(), shift_x=zeros.copy(), disconnected=zeros.copy(),
            crack_t_s=np.full(count, np.nan),
        )  # fmt: skip
        self.full_mah = options.capacity_mah / abs(stuff.discharged - stuff.charged)
        self._sign = 1.0 if stuff.anode else -1.0  # of the lithiating rate for a charging current
        self._k_hz = self.sample.k_hz.copy()
        self._q, self._boost, self._hazard = zeros.copy(), zeros.copy(), zeros.copy()
        self._threshold = self.sample.crack_threshold.copy()
        self._scratch = tuple(np.empty(count) for _ in range(3))
        self._low_c, self._heals = start.copy(), zeros.copy()
        self._cell = np.zeros(6)
        self._cell[k.CELL_OPEN_V] = self._cell[k.CELL_TERMINAL_V] = stuff.open_v(mean)
        self._drive = np.zeros(8)
        self._drive[k.DRIVE_MAX_RATE] = self._drive[k.LIMIT_RATE] = np.inf
        self._set_window(k.LIMIT_LO_V, -np.inf, np.inf)
        self._set_window(k.COMPLY_LO_V, *COMPLIANCE_V)

    # -- the cell as a potentiostat sees it ------------------------------------------------------------

    @property
    def voltage_v(self) -> float:
        """Terminal voltage of the cell now."""
        return self.sample.material.cell_v(float(self._cell[k.CELL_TERMINAL_V]))

    @property
    def current_ma(self) -> float:
        """Current through the cell now."""
        rate = float(self._cell[k.CELL_RATE]) if self.mode != k.OFF else 0.0
        return self._sign * rate * self.full_mah * 3600.0

    @property
    def mode(self) -> int:
        """`OFF`, `GALVANOSTATIC` or `POTENTIOSTATIC` of `kernels.electrode`."""
        return int(self._drive[k.DRIVE_MODE])

    @property
    def tripped(self) -> bool:
        """Whether a device limit opened the circuit in the last `advance`."""
        return bool(self._cell[k.CELL_TRIPPED])

    @property
    def lost_mah(self) -> float:
        """Charge that bounds on lithium content made up so far: rounding, when all is well."""
        return float(self._cell[k.CELL_LOST]) * self.full_mah

    @property
    def soc(self) -> float:
        """State of charge of the cell, capacity-weighted over its particles."""
        return float(self.sample.material.soc(np.sum(self.sample.weight * self.state.c)))

    def set_current(self, current_ma: float) -> None:
        """Galvanostatic from now on."""
        self._drive[k.DRIVE_MODE], self._drive[k.DRIVE_VALUE] = k.GALVANOSTATIC, self._rate(current_ma)

    def set_voltage(self, voltage_v: float, max_current_ma: float) -> None:
        """Potentiostatic from now on, with the current bounded."""
        self._drive[k.DRIVE_MODE], self._drive[k.DRIVE_VALUE] = k.POTENTIOSTATIC, self._electrode_v(voltage_v)
        self._drive[k.DRIVE_MAX_RATE] = abs(self._rate(max_current_ma))

    def rest(self) -> None:
        """Open circuit from now on; particles go on exchanging lithium."""
        self._drive[k.DRIVE_MODE] = k.OFF
        self._cell[k.CELL_RATE] = 0.0
        self._cell[k.CELL_TERMINAL_V] = self._cell[k.CELL_OPEN_V]

    def set_limits(self, min_voltage_v: float, max_voltage_v: float, max_current_ma: float) -> None:
        """Outside of these the circuit opens by itself."""
        self._set_window(k.LIMIT_LO_V, self._electrode_v(min_voltage_v), self._electrode_v(max_voltage_v))
        self._drive[k.LIMIT_RATE] = abs(self._rate(max_current_ma)) * (1 + 1e-9)

    def _rate(self, current_ma: float) -> float:
        return self._sign * current_ma / (self.full_mah * 3600.0)

    def _electrode_v(self, cell_v: float) -> float:
        return self.sample.material.cell_v(cell_v)

    def _set_window(self, at: int, one: float, other: float) -> None:
        self._drive[at], self._drive[at + 1] = min(one, other), max(one, other)

    # -- time ------------------------------------------------------------

    def advance(self, duration_s: float) -> None:
        """Let `duration_s` of simulated time pass."""
        end_s = self.t_s + duration_s
        while self.t_s < end_s - 1e-9:
            part_s = min(CRACK_LOOK_S, end_s - self.t_s)
            self._advance_part(part_s)
            self.t_s += part_s
        self.t_s = end_s

    def _advance_part(self, part_s: float) -> None:
        passed = self._run(part_s)
        if passed < part_s:  # the circuit opened underway: rest for what remains
            tripped = self._cell[k.CELL_TRIPPED]
            self.rest()
            self._run(part_s - passed)
            self._cell[k.CELL_TRIPPED] = tripped
        self._crack_and_heal()
        stuff = self.sample.material
        if stuff.phases:
            k.track_front(self.state.c, stuff.phases[0], stuff.phases[1], self.state.invader)

    def _run(self, duration_s: float) -> float:
        sample, state = self.sample, self.state
        ohm_s = sample.options.series_resistance_ohm * 1e-3 * self.full_mah * 3600.0  # V per unit rate
        passed = k.advance(
            duration_s, MAX_STEP_S, self._drive, ohm_s, sample.material.potential, sample.material.activity,
            sample.material.entropy, sample.material.phases is not None, sample.weight, self._k_hz, sample.resistance_s,
            sample.diffusion_s, sample.hazard_hz, state.c, self._q, state.c_surface, state.c_rate, self._boost,
            self._hazard, *self._scratch, self._cell,
        )  # fmt: skip
        return float(passed)

    # -- cracks ------------------------------------------------------------

    def _crack_and_heal(self) -> None:
        for i in np.flatnonzero(self._hazard >= self._threshold):
            self._crack(int(i))
        lined = np.flatnonzero(self.state.line > 0)
        if lined.size:
            self._heal(lined)

    def _crack(self, i: int) -> None:
        state, number = self.state, int(self.state.crack_count[i]) + 1
        what = crack(self.sample.options.seed, i, number)
        state.crack_count[i], state.line[i], state.crack_t_s[i] = number, 1.0, self.t_s
        state.step_gain[i] *= 1.0 + what.step
        state.shift_y[i] += what.shift_y_px
        state.shift_x[i] += what.shift_x_px
        self._low_c[i], self._heals[i] = state.c[i], what.heals
        self._boost[i] = 1.0
        self._hazard[i] = 0.0
        self._threshold[i] = what.next_threshold if number < MAX_CRACKS else np.inf
        self.events.append(TruthEvent(self.t_s, "crack", i, what.step))
        if what.disconnects:
            self._k_hz[i], state.c_rate[i], state.disconnected[i] = 0.0, 0.0, 1.0
            self._threshold[i] = np.inf
            self.events.append(TruthEvent(self.t_s, "disconnected", i))

    def _heal(self, lined: np.ndarray) -> None:
        """Lines of healing cracks fade as lithium comes back."""
        state = self.state
        self._low_c[lined] = np.minimum(self._low_c[lined], state.c[lined])
        healed = 1.0 - self._heals[lined] * (state.c[lined] - self._low_c[lined]) / HEAL_CONTENT
        state.line[lined] = np.clip(healed, 0.0, state.line[lined])
        for i in lined[state.line[lined] == 0.0]:
            self.events.append(TruthEvent(self.t_s, "crack_closed", int(i)))


def start_contents(sample: Sample) -> np.ndarray:
    """(P,) contents at the options' state of charge after a long rest.

    Solid-solution particles are all alike. Of two-phase ones the quickest have changed already and the rest not, but
    one that makes the sum right.
    """
    options, stuff = sample.options, sample.material
    if stuff.phases is None:
        return np.full(sample.count, stuff.content(options.initial_soc))
    order = np.argsort(-sample.k_hz, kind="stable")
    before = np.concatenate([[0.0], np.cumsum(sample.weight[order])[:-1]])
    share = (options.initial_soc - before) / np.maximum(sample.weight[order], 1e-12)
    contents = np.empty(sample.count)
    contents[order] = stuff.discharged + np.clip(share, 0.0, 1.0) * (stuff.charged - stuff.discharged)
    return contents


def rich_fraction(sample: Sample, c: np.ndarray) -> np.ndarray:
    """Share of the lithium-rich phase in each particle; NaN for a solid solution."""
    if sample.material.phases is None:
        return np.full(len(c), np.nan)
    poor, rich = sample.material.phases
    return np.clip((c - poor) / (rich - poor), 0.0, 1.0)
