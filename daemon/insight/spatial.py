"""Regression over particles that stand in a plane: neighbours share electrolyte, pressure and contact, so they
agree."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NEIGHBOURS = 20
"""Earlier particles that each is conditioned on (Vecchia 1988, J. R. Stat. Soc. B 50, 297). Coefficients are then off
by a tenth of their standard errors; 30 would halve that and cost twice."""
RANGES = (0.03, 0.08, 0.2, 0.5, 1.2)
"""Ranges tried, in units of the field's diagonal."""
SHARES = (0.1, 0.25, 0.5, 0.75, 0.95)
"""Shares of the variance tried that vary over distance; the rest is each particle's own."""
ALONE = 0.5
"""Prior weight of no correlation at all."""
ORDER_SEED = 0
"""Particles are taken in a shuffled order, which the approximation likes best; always the same one."""
ROWS = 512
"""Rows of the distance matrix in memory at a time."""


@dataclass(frozen=True)
class Fit:
    """Coefficients (k,) of a generalised least squares fit, their covariance (k, k) and what was left over."""

    beta: np.ndarray
    covariance: np.ndarray
    free: int
    """Degrees of freedom."""
    share: float
    """Share of the residual variance that goes by place, averaged over what the data allow."""
    alone: float
    """Weight of there being no correlation over distance, 0 to 1."""

    @property
    def sigma(self) -> np.ndarray:
        """(k,) standard errors."""
        return np.sqrt(np.diag(self.covariance))


class Field:
    """Where particles stand, prepared for fits that respect correlation over distance.

    Model: y = X b + s + e, with cov(s_i, s_j) = share v exp(-d_ij / range) and var(e) = (1 - share) v. Range and share
    are averaged over a grid with the weights of the restricted likelihood (Patterson & Thompson 1971, Biometrika 58,
    545), so that what the data do not know of them widens the standard errors.
    """

    def __init__(self, y: np.ndarray, x: np.ndarray, ranges: tuple[float, ...] = RANGES) -> None:
        """(P,) coordinates in any one unit, finite."""
        place = np.column_stack([y, x]).astype(float)
        order = np.random.default_rng(ORDER_SEED).permutation(len(place))
        near, known = _earlier_neighbours(place, order)
        diagonal = float(np.hypot(*np.ptp(place, axis=0))) if len(place) > 1 else 0.0
        self._near, self._count = near, len(place)
        distance = _distances(place, near)
        outside = ~(known[:, :, None] & known[:, None, :])
        models = [_alone(near.shape)]
        self.models: list[tuple[float, float]] = [(0.0, 0.0)]
        """(range in diagonals, share) of each correlation tried."""
        for length in ranges if diagonal > 0 else ():
            decay = np.where(outside, 0.0, np.exp(-distance / (length * diagonal)))
            models += [_whitening(decay, share) for share in SHARES]
            self.models += [(length, share) for share in SHARES]
        self._weights = np.array([weights for weights, _ in models])
        self._half_log_det = np.array([half for _, half in models])
        others = max(1, len(models) - 1)
        self._prior = np.log(np.array([ALONE] + [(1 - ALONE) / others] * (len(models) - 1)))

    def fit(self, values: np.ndarray, design: np.ndarray, tested: int = 0) -> Fit | None:
        """Fit (P,) `values` by the columns of `design` (P, k); None when these are not independent or P <= k.

        The last `tested` columns have no part in weighing the correlations, as in a score test: what goes by place
        would otherwise be explained by a straight line across the field, and that line be found far too sure.
        """
        free = self._count - design.shape[1]
        if free < 1 or np.linalg.matrix_rank(design) < design.shape[1]:
            return None
        y, x = self._whitened(values[:, None])[:, :, 0], self._whitened(design)
        beta, inverse, variance, log_likelihood = _each(y, x)
        if tested:
            log_likelihood = _each(y, x[:, :, : design.shape[1] - tested])[3]
        log_weight = self._prior - self._half_log_det + log_likelihood
        weight = np.exp(log_weight - log_weight.max())
        weight /= weight.sum()
        mean = weight @ beta
        off = beta - mean
        each = variance[:, None, None] * inverse + off[:, :, None] * off[:, None, :]
        share = float(weight @ np.array([share for _, share in self.models]))
        return Fit(mean, np.einsum("g,gij->ij", weight, each), free, share, float(weight[0]))

    def _whitened(self, columns: np.ndarray) -> np.ndarray:
        """(G, P, k): (P, k) columns made uncorrelated under each of the G correlations tried."""
        gathered = columns[self._near]
        return np.stack([np.einsum("pm,pmk->pk", weights, gathered) for weights in self._weights])


def _each(y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Ordinary least squares of G whitened (G, P) values: coefficients (G, k), inverses of X'X (G, k, k), variances
    (G,) and restricted log likelihoods (G,) but for the correlation's determinant."""
    free = y.shape[1] - x.shape[2]
    gram = np.einsum("gpi,gpj->gij", x, x)
    beta = np.linalg.solve(gram, np.einsum("gpi,gp->gi", x, y)[:, :, None])[:, :, 0]
    rest = np.square(y - np.einsum("gpi,gi->gp", x, beta)).sum(axis=1)
    floor = np.finfo(float).eps * max(float(np.square(y[0]).sum()), 1e-300)
    variance = np.maximum(rest, floor) / free
    return beta, np.linalg.inv(gram), variance, -0.5 * np.linalg.slogdet(gram)[1] - 0.5 * free * np.log(variance)


def _earlier_neighbours(place: np.ndarray, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(P, m + 1) indices: the nearest that come earlier in `order`, then the particle itself; and which are real."""
    count = len(place)
    width = min(NEIGHBOURS, max(count - 1, 0))
    near = np.repeat(order[:, None], width + 1, axis=1)
    known = np.zeros((count, width + 1), bool)
    known[:, -1] = True
    ordered = place[order]
    for start in range(0, count, ROWS):
        rows = np.arange(start, min(start + ROWS, count))
        distance = np.linalg.norm(ordered[rows, None] - ordered[None, : rows[-1] + 1], axis=2)
        distance[np.arange(rows[-1] + 1)[None, :] >= rows[:, None]] = np.inf
        take = min(width, distance.shape[1])
        best = np.argpartition(distance, take - 1, axis=1)[:, :take] if take else np.zeros((len(rows), 0), int)
        real = np.isfinite(np.take_along_axis(distance, best, axis=1))
        near[rows, :take] = np.where(real, order[best], order[rows, None])
        known[rows, :take] = real
    return near, known


def _distances(place: np.ndarray, near: np.ndarray) -> np.ndarray:
    """(P, m + 1, m + 1) distances within each particle's set."""
    sets = place[near]
    return np.linalg.norm(sets[:, :, None] - sets[:, None], axis=3)


def _whitening(decay: np.ndarray, share: float) -> tuple[np.ndarray, float]:
    """(P, m + 1) weights by which a set's values become one uncorrelated value, and half the log determinant."""
    correlation = share * decay
    size = decay.shape[1]
    correlation[:, np.arange(size), np.arange(size)] = 1.0
    factor = np.linalg.cholesky(correlation)
    last = np.zeros((size, 1))
    last[-1] = 1.0
    weights = np.linalg.solve(factor.transpose(0, 2, 1), np.broadcast_to(last, (len(decay), size, 1)))[:, :, 0]
    return weights, float(np.log(factor[:, -1, -1]).sum())


def _alone(shape: tuple[int, int]) -> tuple[np.ndarray, float]:
    weights = np.zeros(shape)
    weights[:, -1] = 1.0
    return weights, 0.0
