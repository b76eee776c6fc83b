"""Who fails first: Cox's proportional hazards (Cox 1972, J. R. Stat. Soc. B 34, 187) with few covariates."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from daemon.insight.estimates import Estimate
from daemon.insight.spatial import Field

MIN_FAILURES = 5
"""Fewer tell nothing: the interval of a hazard ratio would span a factor of six at best."""
MANY_FAILURES = 10
"""A covariate (Peduzzi 1995, J. Clin. Epidemiol. 48, 1503); with fewer, coefficients are held by a ridge."""
PRIOR_SD = 1.0
"""Of a log hazard ratio per standard deviation where a ridge holds it: ratios of 0.14 to 7 are not unlikely."""


class HazardModel:
    """Fits to one kind of failure. Ties are handled after Efron; standard errors are widened where failures cluster."""

    def __init__(self, duration: np.ndarray, failed: np.ndarray, field: Field) -> None:
        """(P,) times at risk, positive; (P,) bool; where the same particles stand."""
        self._duration, self._failed, self._field = duration, failed, field
        self._residual = martingale_residuals(duration, failed)

    def estimate(self, columns: np.ndarray, k: int = -1) -> Estimate | None:
        """Log hazard ratio per unit of column `k` of (P, K) `columns`, beside the others; None where it has no fit."""
        fitted = self._fitted(columns)
        if fitted is None:
            return None
        beta, sigma = float(fitted.params_.iloc[k]), float(fitted.standard_errors_.iloc[k])
        if not (math.isfinite(beta) and math.isfinite(sigma) and sigma > 0):
            return None
        sigma *= self.clustering(columns, k)
        return Estimate(beta, sigma, math.inf, len(self._duration))

    def clustering(self, columns: np.ndarray, k: int) -> float:
        """At least 1: how much wider the interval must be since failures close to each other are not independent.

        Ratio of the standard errors with and without correlation over distance of a regression of the martingale
        residuals.
        """
        design = np.column_stack([np.ones(len(columns)), columns])
        place = k + 1 if k >= 0 else k
        spatial = self._field.fit(self._residual, design, tested=1 if place in (-1, columns.shape[1]) else 0)
        if spatial is None:
            return 1.0
        beta = np.linalg.lstsq(design, self._residual)[0]
        left = self._residual - design @ beta
        plain = math.sqrt(float(left @ left) / spatial.free * np.linalg.inv(design.T @ design)[place, place])
        return max(1.0, float(spatial.sigma[place]) / plain) if plain > 0 else 1.0

    def changes_over_time(self, columns: np.ndarray) -> list[float]:
        """p-values of a change of each hazard ratio over the run (Grambsch & Therneau 1994); NaN where too few
        failed."""
        from lifelines.statistics import proportional_hazard_test

        fitted = self._fitted(columns) if self._failed.sum() >= MANY_FAILURES else None
        if fitted is None:
            return [math.nan] * columns.shape[1]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of fits that are hardly determined; p says so
            tested = proportional_hazard_test(fitted, self._table(columns), time_transform="rank")
        return [float(p) for p in np.atleast_1d(tested.p_value)]

    def concordance(self, columns: np.ndarray) -> float:
        """Share of pairs in which the one with the higher hazard failed first; 0.5 is chance."""
        fitted = self._fitted(columns)
        return float(fitted.concordance_index_) if fitted is not None else math.nan

    def _fitted(self, columns: np.ndarray) -> Any:
        from lifelines import CoxPHFitter
        from lifelines.exceptions import ConvergenceError

        count, width = columns.shape
        few = self._failed.sum() < MANY_FAILURES * width
        # lifelines divides the likelihood by the number of particles before it adds the ridge
        fitter = CoxPHFitter(penalizer=1 / (count * PRIOR_SD**2) if few else 0.0)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of separation and slow convergence; both show in the standard errors
                return fitter.fit(self._table(columns), "duration", "failed")
        except (ConvergenceError, np.linalg.LinAlgError):
            return None

    def _table(self, columns: np.ndarray) -> Any:
        import pandas as pd

        named = {f"c{k}": columns[:, k] for k in range(columns.shape[1])}
        return pd.DataFrame(named | {"duration": self._duration, "failed": self._failed})


def refusal(duration: np.ndarray, failed: np.ndarray) -> str:
    """Why no hazard model is fitted, in words; empty when one is."""
    count, total = int(failed.sum()), len(failed)
    if count < MIN_FAILURES:
        return f"{count} of {total} particles failed; at least {MIN_FAILURES} must, to tell who fails first"
    if not (duration > duration[failed].min()).any():
        return "all failures fell into one half, which tells no order"
    return ""


def martingale_residuals(duration: np.ndarray, failed: np.ndarray) -> np.ndarray:
    """(P,) failures minus those expected by Nelson and Aalen's cumulative hazard, as if all particles were alike."""
    times, at = np.unique(duration, return_inverse=True)
    deaths = np.bincount(at, failed.astype(float), len(times))
    leaving = np.bincount(at, minlength=len(times))
    at_risk = len(duration) - np.concatenate([[0], np.cumsum(leaving)[:-1]])
    return failed - np.cumsum(deaths / at_risk)[at]
