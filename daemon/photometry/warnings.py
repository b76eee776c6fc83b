"""Warnings: particles expected to fail, told once, in words, with how many cycles are left."""

from __future__ import annotations

from typing import Any

import numpy as np

from daemon.events import Event, EventKind
from daemon.photometry.blocks import grown
from daemon.photometry.fade import ASYMMETRY, FADE, LAG, Health
from daemon.photometry.lead import LeadBook

WARN_SCORE = 3.45
"""Risk score that is a warning."""
WORSE = 1.5
"""A particle is told again when its score has grown by this factor."""
RISK_SCORE, RISK_WIDTH = 3.1, 0.45
"""The share of particles with a score that fail: a logistic curve, fitted to simulated electrodes (docs/science.md)."""
SHORTER = 1 / 3
"""What a score that grows takes from the cycles left, as a power of its growth: those lived count by themselves."""
TELLING_SCORE = 2.5
"""A departure is named as a reason from here on, and below it nothing is told of the cycles left."""


def probability(risk_score: np.ndarray) -> np.ndarray:
    """(P,) how likely a particle with this score fails; NaN where there is no score."""
    return 1.0 / (1.0 + np.exp(-(risk_score - RISK_SCORE) / RISK_WIDTH))


class WarningBook:
    """Which particles have been warned of, and how badly they stood then."""

    def __init__(self, particle_id: np.ndarray) -> None:
        self._particle_id = particle_id
        self._told = np.full(len(particle_id), np.nan)
        self._first = np.full(len(particle_id), np.nan)
        """Scores with the first warnings: as these grow, less is left."""
        self._leads = LeadBook(len(particle_id))

    def grow(self, particle_id: np.ndarray) -> None:
        """Go on with more particles."""
        self._particle_id = particle_id
        self._told = grown(self._told, len(particle_id), np.nan)
        self._first = grown(self._first, len(particle_id), np.nan)
        self._leads.grow(len(particle_id))

    @property
    def warned(self) -> np.ndarray:
        """(P,) bool: told so far."""
        return np.isfinite(self._told)

    def add(self, health: Health, detected_t_s: float) -> tuple[list[Event], list[dict[str, Any]]]:
        """The warnings of one completed cycle, and the rows of the `health` table."""
        due = (health.risk_score >= WARN_SCORE) & health.fresh & ~health.failed
        due &= np.isnan(self._told) | (health.risk_score >= WORSE * self._told)
        self._told = np.where(due, health.risk_score, self._told)
        self._leads.add(health.cycle, due, health.failed)
        self._first = np.where(due & np.isnan(self._first), health.risk_score, self._first)
        worse = np.power(np.fmax(health.risk_score / self._first, 1.0), SHORTER)
        left = np.where(health.risk_score >= TELLING_SCORE, self._leads.left(health.cycle) / worse, np.nan)
        risk = probability(health.risk_score)
        events = [
            Event(
                EventKind.WARNING, health.t_s, detected_t_s, particle_id=int(self._particle_id[index]),
                magnitude=float(risk[index]), score=float(health.risk_score[index]),
                detail=warning_words(health, index, int(self._particle_id[index]), left[:, index]),
            )
            for index in np.flatnonzero(due).tolist()
        ]  # fmt: skip
        return events, health.rows(self._particle_id, risk, self.warned, left)

    def summary(self) -> dict[str, Any]:
        """For the status."""
        return {"particles_warned": int(self.warned.sum())}


def warning_words(health: Health, index: int, particle_id: int, left: np.ndarray) -> str:
    """Why a particle is expected to fail and how soon, as a sentence; `left` (3,) cycles: bound, median, bound."""
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
    lo, lead, hi = left.tolist()
    when = "it outlived what particles warned of have left, so how soon cannot be told"
    if np.isfinite(lead):
        when = f"such particles have about {lead:.0f} cycles left ({lo:.0f} to {hi:.0f})"
    return f"particle {particle_id} {' and '.join(reasons)}; {when}"
