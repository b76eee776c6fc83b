"""Failures that announce themselves in other ways, among particles that fade and live on, seen less steadily."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FORMS = ("exponential lag and asymmetry", "linear fade", "accelerating fade", "stepwise loss of contact", "hysteresis")
EXPONENTIAL, LINEAR, ACCELERATING, STEPWISE, HYSTERESIS = range(len(FORMS))
SHORTEST, LONGEST = 8, 20
"""Cycles from the first sign to the failure."""
HARMLESS = 0.25
"""Share of those that live on that fade for a while or slow down, and stop."""
C_RATES = (0.5, 1.0, 1.0, 2.0)
"""A cycle's is one of these, by chance."""


@dataclass
class Precursors:
    """What befalls P particles, (P,) each: as `fade.Fate`, by other laws."""

    fails: np.ndarray
    form: np.ndarray
    onset: np.ndarray
    lasts: np.ndarray
    size: np.ndarray
    """0 to 1: where between the least and the most of its form it ends."""
    steps: np.ndarray
    """(P, 5) shares of the way at which contact is lost a little."""
    harmless: np.ndarray
    slope: np.ndarray
    """Loss a cycle of the harmless,"""
    stops: np.ndarray
    """and the loss at which they stop."""
    fade: np.ndarray
    crack_cycle: np.ndarray
    crack_step: np.ndarray

    @classmethod
    def draw(cls, rng: np.random.Generator, count: int, cycles: int, failing: float) -> Precursors:
        """Precursors of `SHORTEST` to `LONGEST` cycles that end before the run does."""
        fails = rng.random(count) < failing
        lasts = rng.integers(SHORTEST, LONGEST + 1, count)
        onset = rng.integers(6, cycles - LONGEST - 2, count)
        cracks = rng.random(count) < np.where(fails, 0.3, 0.15)
        return cls(
            fails, rng.integers(0, len(FORMS), count), onset, lasts, rng.random(count),
            np.sort(rng.uniform(0.1, 1.0, (count, 5)), axis=1), ~fails & (rng.random(count) < HARMLESS),
            rng.uniform(0.001, 0.004, count), rng.uniform(0.02, 0.08, count),
            np.exp(rng.uniform(np.log(0.0005), np.log(0.003), count)),
            np.where(cracks, rng.integers(3, cycles, count), cycles),
            -np.exp(rng.uniform(np.log(0.03), np.log(0.25), count)),
        )  # fmt: skip

    @property
    def failure(self) -> np.ndarray:
        """Cycle in which each is disconnected."""
        return np.where(self.fails, self.onset + self.lasts, 10**6)

    def way(self, cycle: int) -> np.ndarray:
        """0 at the onset to 1 at the failure."""
        return np.where(self.fails, np.clip((cycle - self.onset) / self.lasts, 0.0, 1.0), 0.0)

    def gain(self, cycle: int) -> np.ndarray:
        """Share of its swing that each still follows, its even fade left out."""
        way, most = self.way(cycle), 0.10 + 0.15 * self.size
        taken = (self.steps <= way[:, None]).mean(axis=1)
        share = np.select([self.form == LINEAR, self.form == ACCELERATING, self.form == STEPWISE],
                          [way, way**2.5, taken], 0.0)  # fmt: skip
        slowly = np.clip(self.slope * (cycle - self.onset), 0.0, self.stops)
        return (1.0 - most * share) * np.where(self.harmless, 1.0 - slowly, 1.0)

    def slowing(self, cycle: int) -> np.ndarray:
        """-ln of the rate constants, beside their own at the start."""
        exponential = np.expm1(3.0 * self.way(cycle)) / np.expm1(3.0)
        lagging = np.where(self.form == EXPONENTIAL, np.log(3.0 + 3.0 * self.size) * exponential, 0.0)
        slowly = np.clip(self.slope * (cycle - self.onset), 0.0, self.stops)
        return lagging + np.where(self.harmless & (self.size < 0.3), 3.0 * slowly, 0.0)

    def discharge_gain(self, cycle: int) -> np.ndarray:
        """Rate constant on discharge over that on charge."""
        exponential = np.expm1(3.0 * self.way(cycle)) / np.expm1(3.0)
        return 1.0 - np.where(self.form == EXPONENTIAL, (0.3 + 0.3 * self.size) * exponential, 0.0)

    def hysteresis_v(self, cycle: int) -> np.ndarray:
        """Half the potential between charge and discharge."""
        return np.where(self.form == HYSTERESIS, (0.02 + 0.04 * self.size) * self.way(cycle) ** 1.5, 0.0)


@dataclass
class Focus:
    """What a wandering focus does to contrasts from cycle to cycle."""

    rng: np.random.Generator
    sensitivity: np.ndarray
    """(P,) of a contrast's size to focus; about 1."""
    place: float = 0.0

    @classmethod
    def draw(cls, rng: np.random.Generator, count: int) -> Focus:
        return cls(rng, rng.normal(1.0, 0.3, count))

    def wander(self) -> np.ndarray:
        """(P,) share by which contrasts of the next cycle are larger: 1 %, gone within about five cycles."""
        self.place = 0.8 * self.place + self.rng.normal(0.0, 0.006)
        return self.sensitivity * self.place
