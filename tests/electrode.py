"""An independent electrode for acceptance: particles that share a potential, each with its own kinetics and optics.

It shares no code with the simulated instrument. Solid solution: Butler-Volmer kinetics with spread rate constants and
contact resistances on an open-circuit table, diffusion in spheres by finite volumes on shells of equal volume. Two
phases: a regular solution, particles that take turns, a sharp boundary that comes in from the edge. Fractions are the
particle's charge fraction: 0 discharged, 1 charged, charging raises them. A shell's light comes from the same share of
the particle's image, so that quarters of the area are quarters of the volume. `Spheres` are simpler to tell and finer
at the surface: what models of single particles are tried on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

RT_F = 8.314 * 298.15 / 96485.0
SHELLS = 16
LAYERS = 4
OCV_FRACTION = np.array([0.0, 0.05, 0.12, 0.22, 0.35, 0.48, 0.60, 0.72, 0.83, 0.92, 1.0])
OCV_V = np.array([3.45, 3.56, 3.63, 3.69, 3.745, 3.80, 3.87, 3.955, 4.05, 4.145, 4.27])
"""A layered oxide's shape: steep at both ends, 0.4 V a unit in the middle."""
OMEGA = 4.2
"""Regular solution, in RT: above 2 it separates."""
SOLUBLE = 0.016
"""Binodal of `OMEGA`."""
FLAT_V = 3.42
VOLT = 0.0256926
"""RT/F as `Spheres` have it: published figures are of this, and of `RT_F` for the others."""
THIN_SHELLS = 12
CAPACITY_MAH = 0.5
IMAGE = 0.8
"""Gradient of the image over that of a section: between 1 for a section and 2/3 for all depths seen alike."""


@dataclass(frozen=True)
class Leg:
    """`c_rate` (positive charges) for `hours`, or until the voltage passes `until_v`; a state every `every_s`."""

    c_rate: float
    hours: float
    every_s: float
    until_v: float | None = None


@dataclass
class History:
    """N states of P particles; `t_s`, `voltage_v`, `current_c`, `charge` (N,), the last one in capacities."""

    t_s: np.ndarray
    voltage_v: np.ndarray
    current_c: np.ndarray
    charge: np.ndarray
    shells: np.ndarray
    """(N, P, SHELLS) fractions from the surface inwards, float32."""

    @property
    def soc(self) -> np.ndarray:
        """(N, P) mean fraction of each particle."""
        return self.shells.mean(axis=2, dtype=float)

    @property
    def layers(self) -> np.ndarray:
        """(N, P, 4) fractions of the quarters, surface first."""
        count = self.shells.shape
        return self.shells.reshape(*count[:2], LAYERS, -1).mean(axis=3, dtype=float)

    @property
    def gradient(self) -> np.ndarray:
        """(N, P) surface quarter minus core quarter."""
        layers = self.layers
        return layers[:, :, 0] - layers[:, :, -1]


@dataclass
class SolidSolution:
    """`particles` spheres; `rate_per_h` is the median exchange rate in capacities an hour, `diffusion_h` the median
    R^2/D. Dead ones neither take charge nor count as capacity."""

    particles: int
    seed: int
    rate_per_h: float = 12.0
    rate_spread: float = 0.4
    diffusion_h: float = 0.25
    diffusion_spread: float = 0.35
    resistance_v_h: float = 0.004
    """Median contact resistance: volts a capacity an hour."""
    dead_share: float = 0.04
    start: float = 0.0
    fractions: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng([self.seed, 11])
        count = self.particles
        self.rate = self.rate_per_h * np.exp(self.rate_spread * rng.normal(0, 1, count))
        self.diffusion = self.diffusion_h * np.exp(self.diffusion_spread * rng.normal(0, 1, count))
        self.resistance = self.resistance_v_h * np.exp(0.5 * rng.normal(0, 1, count))
        self.weight = np.exp(0.9 * rng.normal(0, 1, count))
        self.dead = rng.random(count) < self.dead_share
        self.weight[self.dead] = 0.0
        self.weight /= self.weight.sum()
        self.fractions = np.full((count, SHELLS), self.start)
        self._inverses: dict[float, tuple[np.ndarray, np.ndarray]] = {}

    def inverse(self, hours: float) -> np.ndarray:
        """(P, SHELLS, SHELLS) implicit step of diffusion, without flux through the surface."""
        if hours not in self._inverses:
            radii = np.cbrt(np.linspace(1.0, 0.0, SHELLS + 1))
            middle = np.cbrt((np.arange(SHELLS, 0, -1) - 0.5) / SHELLS)
            between = 3.0 * radii[1:-1] ** 2 / (middle[:-1] - middle[1:]) * SHELLS
            self._inverses[hours] = diffused(exchange(between, np.ones(SHELLS)), hours / self.diffusion)
        return self._inverses[hours]

    def step(self, c_rate: float, hours: float, voltage_v: float) -> float:
        """One implicit step at constant current; returns the voltage."""
        inverse = self.inverse(hours)
        rested = np.einsum("pij,pj->pi", inverse, self.fractions)
        gain = SHELLS * hours * inverse[:, :, 0]  # of the shells for a rate of the whole particle
        live = ~self.dead
        rate, resistance, weight = self.rate[live], self.resistance[live], self.weight[live]
        still, answer = rested[live, 0], gain[live, 0]
        flow = np.full(live.sum(), c_rate)
        for _ in range(60):
            surface = np.clip(still + answer * flow, 1e-6, 1 - 1e-6)
            exchange = rate * 2.0 * np.sqrt(surface * (1.0 - surface))
            open_v, slope = ocv(surface)
            drive = 2.0 * RT_F * np.arcsinh(flow / (2.0 * exchange))
            residual = voltage_v - open_v - resistance * flow - drive
            stiff = slope * answer + resistance + 2.0 * RT_F / np.sqrt(flow**2 + 4.0 * exchange**2)
            change_v = (c_rate - weight @ flow - weight @ (residual / stiff)) / (weight @ (1.0 / stiff))
            step = (residual + change_v) / stiff
            flow = flow + step
            voltage_v += float(np.clip(change_v, -0.2, 0.2))
            if np.abs(step).max() < 1e-8 * max(1.0, abs(c_rate)) and abs(change_v) < 1e-8:
                break
        whole = np.zeros(self.particles)
        whole[live] = flow
        self.fractions = rested + gain * whole[:, None]
        return voltage_v

    def open_voltage_v(self) -> float:
        """Of the electrode at rest."""
        return float(ocv(self.fractions.mean(axis=1)[~self.dead])[0].mean())


@dataclass
class TwoPhase:
    """`particles` that transform one after the other: a boundary moves in from the edge, in either direction."""

    particles: int
    seed: int
    rate_per_h: float = 6.0
    rate_spread: float = 0.4
    dead_share: float = 0.04
    start: float = 0.012
    fractions: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng([self.seed, 12])
        count = self.particles
        self.rate = self.rate_per_h * np.exp(self.rate_spread * rng.normal(0, 1, count))
        self.offset_v = 0.004 * rng.normal(0, 1, count)
        self.weight = np.exp(0.9 * rng.normal(0, 1, count))
        self.dead = rng.random(count) < self.dead_share
        self.weight[self.dead] = 0.0
        self.weight /= self.weight.sum()
        self._mean = np.full(count, self.start)
        self._from_low = np.ones(count, bool)
        self._shells()

    def step(self, c_rate: float, hours: float, voltage_v: float) -> float:
        """Explicit steps of at most a thousandth, with the exact galvanostatic closure of symmetric kinetics."""
        left, weight = hours, self.weight
        while left > 1e-12:
            c = np.clip(self._mean, 1e-4, 1 - 1e-4)
            exchange = self.rate * 2.0 * np.sqrt(c * (1.0 - c))
            own = self.offset_v + RT_F * (np.log(c / (1.0 - c)) + OMEGA * (1.0 - 2.0 * c))
            forward, back = np.exp(-own / (2 * RT_F)), np.exp(own / (2 * RT_F))
            p, q = (weight * exchange) @ forward, (weight * exchange) @ back
            b = (c_rate + np.sqrt(c_rate**2 + 4 * p * q)) / (2 * p)
            flow = np.where(self.dead, 0.0, exchange * (b * forward - back / b))
            stiff = np.abs(exchange * (b * forward + back / b) / (c * (1 - c))).max()
            dt = min(left, 2e-3 / max(np.abs(flow).max(), 1e-9), 0.2 / stiff)
            before = self._mean
            self._mean = np.clip(before + dt * flow, 1e-4, 1 - 1e-4)
            left -= dt
            self._from_low[(before < 0.5) & (flow > 0) & (before < 0.08)] = True
            self._from_low[(before > 0.5) & (flow < 0) & (before > 0.92)] = False
            voltage_v = FLAT_V + 2.0 * RT_F * float(np.log(b))
        self._shells()
        return voltage_v

    def _shells(self) -> None:
        """The new phase from the surface inwards: the charged one while charging, the discharged one else.

        Beyond the phases' own fractions a particle is even.
        """
        place, mean = np.arange(SHELLS), self._mean[:, None]
        share = np.clip((mean - SOLUBLE) / (1.0 - 2.0 * SOLUBLE), 0.0, 1.0)
        rising = np.clip(share * SHELLS - place, 0, 1)
        falling = 1.0 - np.clip((1.0 - share) * SHELLS - place, 0, 1)
        charged = np.where(self._from_low[:, None], rising, falling)
        even = mean - (SOLUBLE + (1.0 - 2.0 * SOLUBLE) * share)
        self.fractions = SOLUBLE + (1.0 - 2.0 * SOLUBLE) * charged + even

    def open_voltage_v(self) -> float:
        """Of the electrode at rest."""
        return FLAT_V


def exchange(between: np.ndarray, volume: np.ndarray) -> np.ndarray:
    """(S, S) what diffusion does to S shells in a unit of time: `between` (S - 1,) conducts, `volume` (S,) holds."""
    flow = np.zeros((len(volume), len(volume)))
    for k, g in enumerate(between):
        for i, j in ((k, k + 1), (k + 1, k)):
            flow[i, j] += g / volume[i]
            flow[i, i] -= g / volume[i]
    return flow


def diffused(flow: np.ndarray, times: np.ndarray) -> np.ndarray:
    """(P, S, S) implicit step of `flow` over (P,) units of time."""
    return np.linalg.inv(np.eye(len(flow)) - times[:, None, None] * flow)


def ocv(fraction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Open-circuit voltage and its slope; steep beyond the ends."""
    place = np.clip(np.searchsorted(OCV_FRACTION, fraction) - 1, 0, len(OCV_V) - 2)
    slope = (np.diff(OCV_V) / np.diff(OCV_FRACTION))[place]
    return OCV_V[place] + slope * (fraction - OCV_FRACTION[place]), slope


def drive(electrode: SolidSolution | TwoPhase, legs: Iterable[Leg]) -> History:
    """Take the electrode through the legs; states at the end of every step."""
    times, volts, current, charge, shells = [0.0], [electrode.open_voltage_v()], [0.0], [0.0], []
    shells.append(electrode.fractions.astype(np.float32))
    for leg in legs:
        for _ in range(round(leg.hours * 3600.0 / leg.every_s)):
            voltage_v = electrode.step(leg.c_rate, leg.every_s / 3600.0, volts[-1])
            times.append(times[-1] + leg.every_s)
            volts.append(voltage_v)
            current.append(leg.c_rate)
            charge.append(charge[-1] + leg.c_rate * leg.every_s / 3600.0)
            shells.append(electrode.fractions.astype(np.float32))
            if leg.until_v is not None and (voltage_v - leg.until_v) * leg.c_rate > 0:
                break
    return History(*(np.array(column) for column in (times, volts, current, charge)), np.stack(shells))


@dataclass
class Optics:
    """Relative brightness of each particle's layers as a function of their fraction.

    `folded` (P,) bool turn back within 0..1; with `linear` two phases mix as they do, by area. `unevenness` is the
    relative spread of the layers' brightness within a particle.
    """

    particles: int
    seed: int
    folded_share: float = 0.08
    linear: bool = False
    unevenness: float = 0.0

    def __post_init__(self) -> None:
        rng = np.random.default_rng([self.seed, 13])
        count = self.particles
        self.folded = rng.random(count) < self.folded_share
        self.size = rng.choice([-1.0, 1.0], count) * rng.uniform(0.08, 0.35, count)
        self.bend = 0.0 if self.linear else rng.uniform(-0.6, 0.6, count)
        self.wave = rng.uniform(-0.5, 0.5, count) * (1.0 - np.abs(self.bend)) / np.pi * (not self.linear)
        self.film = self._films(rng)
        self.share = 1.0 + self.unevenness * rng.normal(0, 1, (count, LAYERS))
        self.share /= self.share.sum(axis=1, keepdims=True)

    def _films(self, rng: np.random.Generator) -> np.ndarray:
        """(P, 5): r1, r2, first and last phase, loss; the turning point lies between a fifth and four fifths."""
        count = self.particles
        swept = rng.uniform(0.35, 0.9, count) * np.pi  # of the double phase
        turn = np.pi * rng.integers(1, 4, count)
        first = turn - swept * rng.uniform(0.2, 0.8, count)
        loss = rng.uniform(0.0, 0.1, count)
        return np.stack(
            [rng.uniform(0.3, 0.5, count), rng.uniform(0.12, 0.35, count), first, first + swept, loss], axis=1
        )

    def layers(self, shells: np.ndarray, dead: np.ndarray) -> np.ndarray:
        """(N, P, SHELLS) fractions to (N, P, 4) light of the layers, 1 in all at fraction 0; `dead` stay at that."""
        light = self.shells(shells, dead)
        return light.reshape(*light.shape[:2], LAYERS, -1).mean(axis=3) / LAYERS

    def shells(self, shells: np.ndarray, dead: np.ndarray) -> np.ndarray:
        """(N, P, SHELLS) fractions to the light of each shell, 1 on average over a particle at fraction 0."""
        light = self._brightness(shells.astype(float))
        light[:, dead] = 1.0
        return light * np.repeat(LAYERS * self.share, SHELLS // LAYERS, axis=1)

    def _brightness(self, x: np.ndarray) -> np.ndarray:
        def own(values: np.ndarray | float) -> np.ndarray:
            return np.broadcast_to(values, self.particles)[None, :, None]

        smooth = 1.0 + own(self.size) * (
            x + own(self.bend) * x * (1.0 - x) + own(self.wave) * np.sin(2 * np.pi * x) * x * (1 - x)
        )
        r1, r2, first, last, loss = (own(column) for column in self.film.T)

        def film(at: np.ndarray | float) -> np.ndarray:
            return np.abs(r1 + r2 * np.exp((1j - loss) * (first + (last - first) * at))) ** 2

        return np.where(own(self.folded), film(x) / film(0.0), smooth)

    def turn_share(self) -> np.ndarray:
        """(P,) how far each response turns back, over its span."""
        light = self._brightness(np.repeat(np.linspace(0, 1, 201)[:, None, None], self.particles, axis=1))[:, :, 0]
        fall = (np.maximum.accumulate(light, axis=0) - light).max(axis=0)
        rise = (light - np.minimum.accumulate(light, axis=0)).max(axis=0)
        return np.asarray(np.minimum(fall, rise) / np.ptp(light, axis=0))


def open_circuit_v(soc):
    """A voltage with a bend, of no material."""
    return (
        3.55
        + 0.42 * soc
        + 0.10 * np.tanh((soc - 0.35) / 0.15)
        - 0.05 * np.exp(-soc / 0.05)
        + 0.05 * np.exp((soc - 1.0) / 0.03)
    )


def activity(soc):
    """Slower towards both ends; 1 at SoC 0.5."""
    inside = np.clip(soc, 1e-4, 1.0 - 1e-4)
    return 2.0 * np.sqrt(inside * (1.0 - inside)) * np.exp(0.8 * (inside - 0.5))


@dataclass
class Spheres:
    """P particles told by two numbers each, for models that must find these. `rate_per_h` at SoC 0.5, `tau_s` = R^2/D.

    Shells of equal thickness, a surface read straight on from them, exchange that depends on SoC, an image of all
    depths, the cell's series resistance.
    """

    rate_per_h: np.ndarray
    tau_s: np.ndarray
    series_ohm: float = 15.0

    def __post_init__(self):
        edges = np.linspace(0.0, 1.0, THIN_SHELLS + 1)
        self.volume = np.diff(edges**3)
        self.radius = 0.5 * (edges[1:] + edges[:-1])
        self._flow = exchange(3.0 * edges[1:-1] ** 2 * THIN_SHELLS, self.volume)
        self.shells = np.full((len(self.rate_per_h), THIN_SHELLS), 0.02)
        self._inverse, self._volts, self._rate = {}, 3.4, np.zeros(len(self.rate_per_h))

    def _step_matrix(self, dt):
        if dt not in self._inverse:
            self._inverse[dt] = diffused(self._flow, dt / self.tau_s)
        return self._inverse[dt]

    def surface(self):
        """(P,) straight on from the two outermost shells."""
        return self.shells[:, -1] + 0.5 * (self.shells[:, -1] - self.shells[:, -2])

    def step(self, dt, c_rate):
        """`dt` seconds at `c_rate` (1/h, positive charging); returns the cell voltage at their end."""
        matrix = self._step_matrix(dt)
        top = np.full(THIN_SHELLS, 0.0)
        top[-1] = 1.0 / self.volume[-1]
        base = np.einsum("pij,pj->pi", matrix, self.shells)
        unit = np.einsum("pij,j->pi", matrix, top) * dt
        kappa = self.rate_per_h / 3600.0

        by = 1.5 * unit[:, -1] - 0.5 * unit[:, -2]
        ahead = 1.5 * base[:, -1] - 0.5 * base[:, -2]
        volts = self._volts
        for _ in range(80):  # the voltage by Newton, the rates at each by a few steps of no more than 0.05 of SoC
            for _ in range(6):
                s = ahead + self._rate * by
                scale = 2 * kappa * activity(s)
                drive = (volts - open_circuit_v(s)) / (2 * VOLT) - np.arcsinh(self._rate / scale)
                slope = (open_circuit_v(s + 1e-5) - open_circuit_v(s - 1e-5)) / 2e-5
                stiff = by * slope / (2 * VOLT) + 1 / np.hypot(self._rate, scale)
                change = np.clip(drive / stiff, -0.05 / by, 0.05 / by)
                self._rate = self._rate + change
                if np.max(np.abs(change)) < 1e-10:
                    break
            more = (c_rate / 3600.0 - np.mean(self._rate)) / np.mean(1 / stiff / (2 * VOLT))
            volts += np.clip(more, -0.03, 0.03)
            if abs(more) < 1e-9:
                break
        else:
            raise ArithmeticError("no voltage takes this current")
        self._volts = volts
        self.shells = base + self._rate[:, None] * unit
        return volts + self.series_ohm * 1e-3 * c_rate * CAPACITY_MAH


@dataclass
class Record:
    """What was seen: (N,) times, voltage, current; (N, P) charges and their surfaces less their cores."""

    t_s: np.ndarray
    voltage_v: np.ndarray
    current_ma: np.ndarray
    soc: np.ndarray
    gradient: np.ndarray


PROGRAM = ((0.05, 19.0), (0.0, 0.5), (-0.05, 18.5), (0.0, 0.5), (1.0, 0.9), (0.0, 0.4), (-1.0, 0.9), (0.0, 0.4),
           (2.0, 0.42), (0.0, 0.4), (-2.0, 0.42), (0.0, 0.4))  # fmt: skip
"""(C-rate, hours)."""


PARTS = 8
"""Of a step: in one, implicit steps as long as those between samples lag by as much as a millivolt tells."""


def cycled(spheres: Spheres, program=PROGRAM, steps: int = 240) -> Record:
    """`spheres` through `program`, `steps` samples a piece."""
    rows, t_s = [], 0.0
    outer, inner = spheres.radius**2 > 0.75, spheres.radius**2 < 0.25
    area = spheres.radius.copy()
    for part in (outer, inner):
        area[part] /= area[part].sum()
    for c_rate, hours in program:
        for k in range(steps):
            dt = 0.01 if k == 0 else (hours * 3600.0 - 0.01) / (steps - 1)  # a record has a sample right after a switch
            for _ in range(PARTS):
                volts = spheres.step(dt / PARTS, c_rate)
            t_s += dt
            seen = IMAGE * (spheres.shells[:, outer] @ area[outer] - spheres.shells[:, inner] @ area[inner])
            rows.append((t_s, volts, c_rate * CAPACITY_MAH, spheres.shells @ spheres.volume, seen))
    columns = zip(*rows, strict=True)
    return Record(*(np.array(column) for column in columns))
