"""Rate constants and diffusivities of solid-solution particles: a joint fit of all to one electrode potential.

Every particle answers to the cell's voltage by `kernels.kinetics`. Its own: ln k, ln(R^2/D), the charge at the start,
how far its calibration is off (a curve over SoC, by its `soc_sigma`). Common to all: series resistance, what U misses
of the run's own estimate, and ln a(SoC), 0 at SoC 0.5. Gauss-Newton with exact derivatives; the particles' own
parameters are eliminated (Schur complement), so that cost is linear in particles.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from daemon.insight.equilibrium import Equilibrium
from kernels.kinetics import LN_RATE, LN_TAU, OFF, START, respond

U_KNOTS, A_KNOTS = 17, 17
COMMON = 1 + U_KNOTS + A_KNOTS
OFF_KNOTS, LAYER_KNOTS = 9, 5
"""Knots of what a calibration and the layers' calibrations are off by."""
OWN = 3 + OFF_KNOTS
DRAW = 0.1
"""Share by which the model is drawn to each measured charge: it forgets in ten points of a half's 120."""
PROFILE, PROFILE_SIGMA = 1.5, 0.12
"""Gradient over x_s - x, and how far that may be off (of its logarithm). A parabola in a sphere gives 1.875 between
outer and inner quarter of a section through its middle and 1.25 when all depths are seen alike; a disc gives 1.5."""
SOC_EDGE = 0.01
"""Charges nearer to 0 or 1 are cut off by the calibration and not used."""
FLOOR_SOC = 0.002
"""Of a point's sigma: times within a mean, straight lines between knots."""
A_BEND = 0.35
"""Typical second difference of ln a between knots."""
FREE = 3.0
"""Standard deviation of what is not known of a logarithm beforehand."""
OUTLIER = 3.0
"""Residuals beyond this many sigma count by their size, not by its square (Huber)."""
STAGES = ((0.05, 25), (0.02, 15), (0.005, 15), (FLOOR_SOC, 15))
"""Floors by which the common parameters are approached, and rounds at each: sharp data make narrow valleys."""
OWN_ROUNDS = 10
BLOCK = 25
"""Points in a block whose mean residual shows how correlated residuals are."""


@dataclass(frozen=True)
class Observed:
    """What is fitted. M times (the first is the start, and is not fitted), S = (M - 1) * every steps between them."""

    t_s: np.ndarray
    soc: np.ndarray
    """(M, P)"""
    soc_sigma: np.ndarray
    """(M, P) of a point's noise alone."""
    offset_sigma: np.ndarray
    """(P,) how far the calibration may be off."""
    gradient: np.ndarray
    """(M, P), NaN where unknown."""
    gradient_sigma: np.ndarray
    dt_s: np.ndarray
    """(S,)"""
    volts: np.ndarray
    amps: np.ndarray
    """(S,) current at the end of each step over the largest."""
    every: int

    @property
    def particles(self) -> int:
        """P."""
        return self.soc.shape[1]


@dataclass
class Common:
    """What all particles share."""

    ohm: float = 0.0
    """V at the largest current."""
    u: np.ndarray = field(default_factory=lambda: np.zeros(U_KNOTS))
    a: np.ndarray = field(default_factory=lambda: np.zeros(A_KNOTS))
    covariance: np.ndarray = field(default_factory=lambda: np.zeros((COMMON, COMMON)))

    def vector(self) -> np.ndarray:
        """(COMMON,) in the kernel's order."""
        return np.concatenate([[self.ohm], self.u, self.a])

    def moved(self, step: np.ndarray) -> Common:
        """With `step` (COMMON,) added."""
        new = self.vector() + step
        return Common(float(new[0]), new[1 : 1 + U_KNOTS], new[1 + U_KNOTS :], self.covariance)


def spread(count: int) -> np.ndarray:
    """(count,) places over 0..1, denser towards the ends, where voltages bend."""
    return np.asarray(np.sin(np.linspace(0.0, np.pi / 2, count)) ** 2)


U_AT, A_AT, OFF_AT = spread(U_KNOTS), np.linspace(0.0, 1.0, A_KNOTS), np.linspace(0.0, 1.0, OFF_KNOTS)


def hats(x: np.ndarray, count: int) -> np.ndarray:
    """(n, count) shares of `count` knots over 0..1 in straight lines between; ends held outside."""
    at = np.clip(x, 0.0, 1.0) * (count - 1)
    return np.asarray(np.maximum(0.0, 1.0 - np.abs(at[:, None] - np.arange(count))))


class Joint:
    """The least-squares problem: `settle` the common parameters, then `fit` each particle."""

    def __init__(
        self, observed: Observed, equilibrium: Equilibrium, floor: float = FLOOR_SOC, profile: float = PROFILE
    ) -> None:
        self.observed = observed
        self.profile = profile
        self.table = equilibrium.table_v
        self._prior = _common_prior(equilibrium)
        soc, sigma = observed.soc[1:], np.hypot(observed.soc_sigma[1:], floor)
        self._used = np.isfinite(soc) & np.isfinite(sigma) & (soc > SOC_EDGE) & (soc < 1.0 - SOC_EDGE)
        self._sigma = sigma
        self._seen = np.asfortranarray(np.where(self._used, soc, np.nan))
        self.draw = DRAW
        layers = np.isfinite(observed.gradient[1:]) & np.isfinite(observed.gradient_sigma[1:])
        self._layered = layers & self._used
        self._layer_sigma = np.hypot(observed.gradient_sigma[1:], floor)
        rows = len(observed.t_s) - 1
        self._scratch = np.empty(rows), np.empty(rows), np.empty((rows, OWN + COMMON)), np.empty((rows, OWN + COMMON))
        self._start = np.array([_first(observed.soc[:, i]) for i in range(observed.particles)])

    def points(self, i: int) -> int:
        """How many charges of particle `i` are fitted."""
        return int(self._used[:, i].sum())

    def begin(self, which: np.ndarray, common: Common, ln_rates: np.ndarray, ln_tau: float) -> np.ndarray:
        """(P, OWN) own parameters to begin with: of `ln_rates` the one that fits best each of the particles `which`."""
        own = np.zeros((len(self._start), OWN))
        own[:, LN_TAU], own[:, START] = ln_tau, self._start
        for i in which.tolist():
            trials = np.tile(own[i], (len(ln_rates), 1))
            trials[:, LN_RATE] = ln_rates
            own[i] = trials[np.argmin([self.chi2(i, trial, common) for trial in trials])]
        return own

    # -- one particle ------------------------------------------------------------

    def _respond(self, i: int, own: np.ndarray, common: Common, sensed: int) -> tuple[np.ndarray, ...]:
        o = self.observed
        mean, lead, mean_by, lead_by = self._scratch
        by = mean_by[:, :sensed], lead_by[:, :sensed]
        respond(
            o.dt_s,
            o.volts,
            o.amps,
            o.every,
            self.table,
            U_AT,
            common.u,
            A_AT,
            common.a,
            OFF_AT,
            own,
            common.ohm,
            self._seen[:, i],
            self.draw,
            sensed,
            mean,
            lead,
            *by,
        )
        return mean, lead, *by

    def rows(self, i: int, own: np.ndarray, common: Common, sensed: int) -> tuple[np.ndarray, np.ndarray]:
        """(n,) residuals and (n, sensed + knots) derivatives of the model, all over their sigma, priors among them."""
        mean, lead, mean_by, lead_by = self._respond(i, own, common, sensed)
        used, layered = self._used[:, i], self._layered[:, i]
        weight, layer_weight = 1.0 / self._sigma[used, i], 1.0 / self._layer_sigma[layered, i]
        soc, gradient = self.observed.soc[1:, i], self.observed.gradient[1:, i]
        layer_off = hats(soc[layered], LAYER_KNOTS)
        model = np.zeros((len(weight) + len(layer_weight), sensed + LAYER_KNOTS))
        model[: len(weight), :sensed] = weight[:, None] * mean_by[used]
        model[len(weight) :, :sensed] = layer_weight[:, None] * self.profile * lead_by[layered]
        model[len(weight) :, sensed:] = layer_weight[:, None] * layer_off
        miss = np.concatenate([
            weight * (soc[used] - mean[used]), layer_weight * (gradient[layered] - self.profile * lead[layered])
        ])  # fmt: skip
        return miss, model

    def normal(self, i: int, own: np.ndarray, common: Common, sensed: int) -> tuple[np.ndarray, np.ndarray, float]:
        """Normal matrix and right side of [own.., common..], priors of own and knots in; chi2, knots at best."""
        miss, model = self.rows(i, own, common, sensed)
        away = np.maximum(np.abs(miss) / OUTLIER, 1.0)
        weighted = model / away[:, None]
        matrix, right = weighted.T @ model, weighted.T @ miss
        total = float(np.sum(miss**2 * (2.0 * away - 1.0) / away**2))
        off = max(self.observed.offset_sigma[i], FLOOR_SOC)
        prior, away = np.zeros(len(matrix)), own.copy()
        prior[sensed:] = 1.0 / (2.0 * off**2)  # two layers, each off as far
        prior[OFF:OWN] = 1.0 / off**2
        prior[START], away[START] = 1.0 / off**2, own[START] - self._start[i]
        prior[LN_TAU], away[LN_TAU] = FREE**-2, own[LN_TAU] - 6.0
        prior[LN_RATE], away[LN_RATE] = 1e-6, 0.0
        matrix[np.diag_indices_from(matrix)] += prior
        right[:OWN] -= prior[:OWN] * away
        total += float(prior[:OWN] @ away**2)
        matrix, right, gain = _eliminate(matrix, right, sensed)
        return matrix, right, total - gain

    def chi2(self, i: int, own: np.ndarray, common: Common) -> float:
        """Of particle `i` with the best knots of its calibration."""
        return self.normal(i, own, common, OWN)[2]

    def profile_chi2(self, i: int, own: np.ndarray, common: Common, held: int) -> float:
        """As `chi2` with the own parameters but `held` at their best, by one step from `own`."""
        matrix, right, total = self.normal(i, own, common, OWN)
        free = np.delete(np.arange(OWN), held)
        return total - float(right[free] @ np.linalg.solve(matrix[np.ix_(free, free)], right[free]))

    def improve(self, i: int, own: np.ndarray, common: Common, rounds: int = OWN_ROUNDS) -> tuple[np.ndarray, float]:
        """Own parameters moved to the particle's best at these common ones, and its chi2 (Levenberg-Marquardt)."""
        damping, (matrix, right, best) = 1e-3, self.normal(i, own, common, OWN)
        for _ in range(rounds):
            step = np.linalg.solve(matrix + damping * np.diag(np.diag(matrix)), right)
            trial = own + np.clip(step, -1.5, 1.5)
            new = self.normal(i, trial, common, OWN)
            if new[2] < best:
                done = best - new[2] < 1e-3 * max(1.0, best * 1e-4)
                own, (matrix, right, best), damping = trial, new, damping / 5
                if done:
                    break
            elif damping > 1e4:
                break
            else:
                damping = max(damping, 1e-3) * 8
        return own, best

    def inflation(self, i: int, own: np.ndarray, common: Common) -> float:
        """Factor on the covariance of particle `i`: how much more blocks of residuals vary than white ones would."""
        miss = self.rows(i, own, common, OWN)[0][: self.points(i)]
        starts = np.arange(0, len(miss), BLOCK)
        counts = np.diff(np.append(starts, len(miss)))
        return max(1.0, float(np.mean(np.add.reduceat(miss, starts) ** 2 / counts))) if len(miss) else 1.0

    def predict(self, i: int, own: np.ndarray, common: Common, free: bool = False) -> np.ndarray:
        """(M - 1,) charges as the calibration would show them; `free` of the measured ones after the start."""
        self.draw = 0.0 if free else DRAW
        mean = self._respond(i, own, common, OWN)[0].copy()
        self.draw = DRAW
        return mean

    def sigma(self, i: int) -> np.ndarray:
        """(M - 1,) standard deviation by which charges are weighed."""
        return self._sigma[:, i]

    def sensitivity(self, i: int, own: np.ndarray, common: Common) -> tuple[np.ndarray, np.ndarray]:
        """(OWN, OWN) covariance of the own parameters at these common ones, and (OWN, COMMON) how they follow those."""
        matrix = self.normal(i, own, common, OWN + COMMON)[0]
        inverse = np.linalg.inv(matrix[:OWN, :OWN])
        return inverse, -inverse @ matrix[:OWN, OWN:]

    # -- all together ------------------------------------------------------------

    def settle(self, which: np.ndarray, own: np.ndarray, common: Common, rounds: int) -> tuple[np.ndarray, Common]:
        """Common parameters from the particles `which`, their `own` (P, OWN) improved along; `covariance` filled in."""
        damping, (best, systems) = 1e-2, self._systems(which, own, common)
        for _ in range(rounds):
            step, own_steps = self._step(systems, common, damping)
            trial, moved = common.moved(np.clip(step, -1.0, 1.0)), own.copy()
            moved[which] += np.clip(own_steps, -1.0, 1.0)
            new, new_systems = self._systems(which, moved, trial)
            if new < best:
                done = best - new < 1e-4 * best
                own, common, systems, best, damping = moved, trial, new_systems, new, damping / 6
                if done:
                    break
            elif damping > 1e6:
                break
            else:
                damping = max(damping, 1e-4) * 5
        common.covariance = np.linalg.inv(self._reduced(systems, common, 0.0)[0])
        return own, common

    def _systems(
        self, which: np.ndarray, own: np.ndarray, common: Common
    ) -> tuple[float, tuple[np.ndarray, np.ndarray]]:
        """Total chi2, and every particle's normal matrix and right side of [own, common]."""
        mean, precision = self._prior
        away = common.vector() - mean
        each = [self.normal(i, own[i], common, OWN + COMMON) for i in which.tolist()]
        total = float(away @ precision @ away) + sum(chi2 for _, _, chi2 in each)
        return total, (np.array([matrix for matrix, _, _ in each]), np.array([right for _, right, _ in each]))

    def _reduced(
        self, systems: tuple[np.ndarray, np.ndarray], common: Common, damping: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Normal matrix and right side of the common parameters with the own ones at their best.

        And (n, OWN, COMMON + 1) solutions of the own blocks.
        """
        matrices, rights = systems
        mean, precision = self._prior
        blocks = matrices[:, :OWN, :OWN] * (1.0 + damping * np.eye(OWN))
        cross = matrices[:, :OWN, OWN:]
        inner = np.linalg.solve(blocks, np.concatenate([cross, rights[:, :OWN, None]], axis=2))
        folded = np.einsum("nok,nom->km", cross, inner)
        matrix = precision + matrices[:, OWN:, OWN:].sum(axis=0) - folded[:, :-1]
        right = rights[:, OWN:].sum(axis=0) - precision @ (common.vector() - mean) - folded[:, -1]
        return matrix, right, inner

    def _step(
        self, systems: tuple[np.ndarray, np.ndarray], common: Common, damping: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Damped step of the common parameters and (n, OWN) of the own ones."""
        matrix, right, inner = self._reduced(systems, common, damping)
        step = np.linalg.solve(matrix + damping * np.diag(np.diag(matrix)), right)
        return step, inner[:, :, -1] - inner[:, :, :-1] @ step


def _eliminate(matrix: np.ndarray, right: np.ndarray, keep: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Normal equations of the first `keep` unknowns with the rest at their best, and what those take off the chi2."""
    inner = np.linalg.solve(matrix[keep:, keep:], np.column_stack([matrix[keep:, :keep], right[keep:]]))
    cross = matrix[:keep, keep:]
    return (
        matrix[:keep, :keep] - cross @ inner[:, :-1],
        right[:keep] - cross @ inner[:, -1],
        float(right[keep:] @ inner[:, -1]),
    )


def _common_prior(equilibrium: Equilibrium) -> tuple[np.ndarray, np.ndarray]:
    """Mean and precision of the common parameters before any particle is seen."""
    precision = np.zeros((COMMON, COMMON))
    precision[0, 0] = 1.0
    at = np.arange(1, 1 + U_KNOTS)
    precision[at, at] = 1.0 / equilibrium.sigma_at(U_AT) ** 2
    bend = np.diff(np.eye(A_KNOTS), 2, axis=0) / A_BEND
    a = slice(1 + U_KNOTS, COMMON)
    precision[a, a] = bend.T @ bend + np.eye(A_KNOTS) / FREE**2
    middle = 1 + U_KNOTS + A_KNOTS // 2
    precision[middle, middle] += 1e12  # ln a is 0 at SoC 0.5
    return np.zeros(COMMON), precision


def _first(soc: np.ndarray) -> float:
    finite = soc[np.isfinite(soc)]
    return float(np.mean(finite[:3])) if len(finite) else 0.5
