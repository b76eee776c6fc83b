"""Particles that stand out of the ensemble: by what, by how much, in words; each told once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from daemon.events import Event, EventKind
from daemon.photometry.cycles import HalfMeasures, SocOf
from daemon.photometry.ensemble import MAD_TO_SIGMA, MIN_RATES

SHOWN = 5
SHOWN_SIGMAS = 3.5
"""The status names particles from here on,"""
TOLD_SIGMAS = 5.0
"""an event tells them from here on,"""
WORSE = 1.5
"""and again when they have become this much worse."""


Words = Callable[[float, float], str]
"""(value, median) to what the particle does."""


@dataclass(frozen=True)
class Property:
    """One thing a particle may stand out by; (P,) values on a scale on which differences count alike."""

    name: str
    values: np.ndarray
    sigma: np.ndarray
    words: Words
    told: bool = True
    """False: shown in the status only."""


class OutlierBook:
    """Finds the particles that differ, half by half, and remembers what was told."""

    def __init__(self) -> None:
        self._before: HalfMeasures | None = None
        self._told: dict[tuple[int, str], float] = {}
        self.shown: list[dict[str, Any]] = []
        """For the status: the most unusual first."""

    def add(
        self, measures: HalfMeasures, soc: SocOf, particle_id: np.ndarray, members: np.ndarray, detected_t_s: float
    ) -> list[Event]:
        """Take one half; `members` (P,) bool are compared. The events of those that newly stand out."""
        before, self._before = self._before, measures
        pair = before if before is not None and before.cycle == measures.cycle else None
        if pair is not None and len(pair.lag_s) != len(particle_id):
            pair = None
        properties = _properties(measures, pair, soc)
        scores = np.array([robust_score(np.where(members, one.values, np.nan), one.sigma) for one in properties])
        size = np.nan_to_num(np.abs(scores), nan=0.0)
        if not size.size:
            self.shown = []
            return []
        best = size.argmax(axis=0)
        worst = size.max(axis=0)
        order = [k for k in np.argsort(-worst, kind="stable").tolist() if worst[k] >= SHOWN_SIGMAS]
        compared = [one.values[members & np.isfinite(one.values)] for one in properties]
        medians = [float(np.median(values)) if len(values) else np.nan for values in compared]
        entries = {}
        for k in order:
            one, median = properties[best[k]], medians[best[k]]
            did = one.words(float(one.values[k]), median)
            entries[k] = {
                "particle_id": int(particle_id[k]),
                "by": one.name,
                "score": round(float(worst[k]), 2),
                "reason": f"particle {int(particle_id[k])} {did} ({worst[k]:.1f} robust sigmas)",
            }
        self.shown = [entries[k] for k in order[:SHOWN]]
        told = [entry for k, entry in entries.items() if properties[best[k]].told and self._is_news(entry)]
        return [self._event(entry, measures.end_t_s, detected_t_s) for entry in told]

    def _is_news(self, entry: dict[str, Any]) -> bool:
        key, score = (entry["particle_id"], entry["by"]), entry["score"]
        if score < max(TOLD_SIGMAS, WORSE * self._told.get(key, 0.0)):
            return False
        self._told[key] = score
        return True

    @staticmethod
    def _event(entry: dict[str, Any], t_s: float, detected_t_s: float) -> Event:
        return Event(
            EventKind.OUTLIER, t_s, detected_t_s, particle_id=entry["particle_id"], magnitude=entry["score"],
            detail=entry["reason"],
        )  # fmt: skip


def robust_score(values: np.ndarray, sigma: np.ndarray | float = 0.0) -> np.ndarray:
    """Distance from the median over 1.4826 times the median absolute deviation, and the value's own `sigma` with it.

    NaN for fewer than five values.
    """
    good = np.isfinite(values)
    if good.sum() < MIN_RATES:
        return np.full(values.shape, np.nan)
    middle = np.median(values[good])
    spread = MAD_TO_SIGMA * np.median(np.abs(values[good] - middle))
    if not spread > 0:
        return np.full(values.shape, np.nan)
    return (values - middle) / np.hypot(spread, np.nan_to_num(np.asarray(sigma, float), nan=0.0))


def _properties(measures: HalfMeasures, pair: HalfMeasures | None, soc: SocOf) -> list[Property]:
    """What is compared: of the half, and of the cycle when it is whole."""
    half = f"on {measures.half}"
    with np.errstate(all="ignore"):
        rate = np.log(measures.rate_per_h(soc))
        swing = np.log(measures.swing)
        kept = np.log(measures.retention)
        rate_sigma = measures.span_sigma_s / measures.span_s
        swing_sigma = measures.swing_sigma / measures.swing
        kept_sigma = measures.retention_sigma / measures.retention
    found = [
        Property("rate_per_h", rate, rate_sigma, _ratio(f"reacts {{}} than the median {half}", "faster", "slower")),
        Property("swing", swing, swing_sigma, _ratio(f"swings {{}} than the median {half}", "more", "less")),
        Property("retention", kept, kept_sigma, _kept(half)),
    ]
    if pair is None:
        return [*found, Property("lag_s", measures.lag_s, measures.lag_sigma_s, _lag(half), told=False)]
    # a curved answer of contrast to charge moves the lags of charge and discharge apart, and leaves their mean
    lag, sigma = (measures.lag_s + pair.lag_s) / 2.0, np.hypot(measures.lag_sigma_s, pair.lag_sigma_s) / 2.0
    apart = _ratio("takes {} to discharge than to charge, beside the median", "longer", "less long")
    return [
        *found,
        Property("lag_s", lag, sigma, _lag("over the cycle")),
        Property("asymmetry", measures.asymmetry, measures.asymmetry_sigma, apart),
        Property("hysteresis_v", measures.hysteresis_v, np.zeros(len(lag)), _hysteresis),
    ]


def _ratio(sentence: str, more: str, less: str) -> Words:
    """Words for natural logarithms: "2.1 times faster"."""
    return lambda value, median: sentence.format(
        f"{np.exp(abs(value - median)):.2g} times {more if value > median else less}"
    )


def _kept(half: str) -> Words:
    return lambda value, median: (
        f"keeps {100 * np.exp(value):.0f} % of its swing {half}, the median {100 * np.exp(median):.0f} %"
    )


def _lag(where: str) -> Words:
    return lambda value, median: f"{'lags' if value > 0 else 'runs ahead'} by {abs(value):.3g} s {where}"


def _hysteresis(value: float, median: float) -> str:
    return f"has a hysteresis of {1e3 * value:.0f} mV, the median {1e3 * median:.0f} mV"
