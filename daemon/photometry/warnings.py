"""Warnings: particles expected to fail, told once, in words, with how many cycles are left."""

from __future__ import annotations

from typing import Any

import numpy as np

from daemon.events import Event, EventKind
from daemon.photometry.blocks import grown
from daemon.photometry.fade import ASYMMETRY, FADE, FAILED_RETENTION, LAG, Health

WARN_SCORE = 3.8
"""Risk score that is a warning."""
WORSE = 1.5
"""A particle is told again when its score has grown by this factor."""
RISK_SCORE, RISK_WIDTH = 3.5, 0.8
"""The share of particles with a score that fail: a logistic curve, fitted to simulated electrodes (docs/science.md)."""
TELLING_SCORE = 2.5
"""A trend is named as a reason from here on."""


def probability(risk_score: np.ndarray) -> np.ndarray:
    """(P,) how likely a particle with this score fails; NaN where there is no score."""
    return 1.0 / (1.0 + np.exp(-(risk_score - RISK_SCORE) / RISK_WIDTH))


class WarningBook:
    """Which particles have been warned of, and how badly they stood then."""

    def __init__(self, particle_id: np.ndarray) -> None:
        self._particle_id = particle_id
        self._told = np.full(len(particle_id), np.nan)

    def grow(self, particle_id: np.ndarray) -> None:
        """Go on with more particles."""
        self._particle_id = particle_id
        self._told = grown(self._told, len(particle_id), np.nan)

    @property
    def warned(self) -> np.ndarray:
        """(P,) bool: told so far."""
        return np.isfinite(self._told)

    def add(self, health: Health, detected_t_s: float) -> tuple[list[Event], list[dict[str, Any]]]:
        """The warnings of one completed cycle, and the rows of the `health` table."""
        due = (health.risk_score >= WARN_SCORE) & health.fresh & ~health.failed
        due &= np.isnan(self._told) | (health.risk_score >= WORSE * self._told)
        self._told = np.where(due, health.risk_score, self._told)
        risk = probability(health.risk_score)
        events = [
            Event(
                EventKind.WARNING, health.t_s, detected_t_s, particle_id=int(self._particle_id[index]),
                magnitude=float(risk[index]), score=float(health.risk_score[index]),
                detail=warning_words(health, index, int(self._particle_id[index])),
            )
            for index in np.flatnonzero(due).tolist()
        ]  # fmt: skip
        return events, health.rows(self._particle_id, risk, self.warned)

    def summary(self) -> dict[str, Any]:
        """For the status."""
        return {"particles_warned": int(self.warned.sum())}


def warning_words(health: Health, index: int, particle_id: int) -> str:
    """Why a particle is expected to fail and how soon its loss alone gets there, as a sentence."""
    trend, score = health.trends[index], health.scores[index]
    reasons = []
    if score[FADE] >= TELLING_SCORE:
        reasons.append(f"loses {100 * trend[FADE]:.2g} % of its swing a cycle more than the others")
    if score[LAG] >= TELLING_SCORE:
        reasons.append(f"lags more by {100 * trend[LAG]:.2g} % of its swing each cycle")
    if abs(score[ASYMMETRY]) >= TELLING_SCORE:
        reasons.append("its charge and discharge grow apart")
    if not reasons:
        reasons.append("loses swing, lags and grows asymmetric a little each")
    lead, lo, hi = health.lead_cycles[index], health.lead_lo[index], health.lead_hi[index]
    left = f"{100 * FAILED_RETENTION:.0f} % is left"
    when = "how soon cannot be told"
    if np.isfinite(lead):
        until = f"{hi:.0f}" if np.isfinite(hi) else "many"
        when = f"at this pace {left} in about {lead:.0f} cycles ({lo:.0f} to {until}); contact may be lost before"
    elif np.isfinite(lo):
        when = f"at this pace {left} not before {lo:.0f} cycles; contact may be lost before"
    return f"particle {particle_id} {' and '.join(reasons)}; {when}"
