"""Who takes part: active, partial and dead particles of electrodes in which all three look much alike."""

from __future__ import annotations

import numpy as np

from daemon.photometry.activity import DEAD, PARTIAL
from tests.accuracy.effort import Effort
from tests.accuracy.electrode import Electrode, Optics, Recorder, Step, drive, science_of
from tests.bench.figures import Figure, at_least, at_most

TITLE = "Active, partial and dead"
INTRO = """\
300 particles, two cycles at 1C; active ones swing by 3 to 30 %. Of all, 3 to 12 % are dead, a third of these with a
slow drift of up to 2 % in an hour (a film that grows), all with a wander of 1e-4; 8 % are partial: a core or a surface
of one or two of the four layers stays behind, by nine tenths. The plain pipeline calls a particle dead whose smoothed
contrast varies, from least to largest, by less than three standard deviations of its noise."""
COUNT = 300
CYCLES = 2


def run(effort: Effort) -> list[Figure]:
    """Shares of right verdicts, and the inactive fraction."""
    runs = [Judged(seed) for seed in effort.seeds]
    right = np.concatenate([one.states == one.truth for one in runs])
    truth = np.concatenate([one.truth for one in runs])
    plain = np.concatenate([one.plain_dead == (one.truth == DEAD) for one in runs])
    fraction = np.array([one.inactive - np.mean(one.truth == DEAD) for one in runs])
    plain_fraction = np.array([one.plain_dead.mean() - np.mean(one.truth == DEAD) for one in runs])
    first = np.concatenate([one.first == one.truth for one in runs])
    told = np.concatenate([one.states == DEAD for one in runs])
    return [
        at_least("states right at a swing of 3 % and more, %", 100 * right.mean(), 99.0, digits=2),
        Figure("  active or dead, without partial", f"{100 * np.mean((truth == DEAD) == told):.2f} %", "",
               plain=f"{100 * plain.mean():.2f} %"),
        Figure("  of the active", _share(right, truth == 0), ""),
        Figure("  of the partial", _share(right, truth == PARTIAL), ""),
        Figure("  of the dead", _share(right, truth == DEAD), ""),
        Figure("  after the first charge already", f"{100 * first.mean():.2f} %", ""),
        at_most("inactive fraction: worst error, percentage points", 100 * float(np.abs(fraction).max()), 1.0,
                plain=f"{100 * np.abs(plain_fraction).max():.2f}"),
    ]  # fmt: skip


def _share(right: np.ndarray, members: np.ndarray) -> str:
    return f"{100 * right[members].mean():.2f} % of {int(members.sum())}"


class Judged:
    """One seed's run: true and told states (P,), told inactive fraction."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng([seed, 32])
        optics = Optics.draw(rng, COUNT)
        kind = rng.random(COUNT)
        dead = kind < rng.uniform(0.03, 0.12)
        partial = ~dead & (rng.random(COUNT) < 0.08)
        self.truth = np.where(dead, DEAD, np.where(partial, PARTIAL, 0))
        k = 3.0 * np.exp(rng.normal(0, 0.4, COUNT))
        share = np.where(dead, 0.0, optics.area_px**1.5)
        recorder = Recorder(optics, rng)
        recorder.drift_per_h = np.where(dead & (rng.random(COUNT) < 0.33), rng.uniform(-0.02, 0.02, COUNT), 0.0)
        electrode = Electrode(k, share / share.sum(), np.full(COUNT, 0.02))
        follow = _follow(rng, partial)
        gain = np.where(dead, 0.0, 1.0)
        drive(electrode, recorder, Step(duration_s=300, frame_s=30), 0)
        for _ in range(CYCLES):
            for sign in (1, -1):
                step = Step(c_rate=sign, until_v=4.15 if sign > 0 else 3.5, frame_s=12)
                drive(electrode, recorder, step, 1, follow, gain)
        self.states, self.first, self.inactive = _told(recorder)
        self.plain_dead = _plain(recorder)


def _follow(rng: np.random.Generator, partial: np.ndarray) -> np.ndarray:
    """(P, 4): how far each layer follows its particle."""
    follow = np.ones((COUNT, 4))
    for index in np.flatnonzero(partial):
        width = rng.integers(1, 3)
        layers = slice(0, width) if rng.random() < 0.5 else slice(4 - width, 4)
        follow[index, layers] = 0.1
    return follow


def _told(recorder: Recorder) -> tuple[np.ndarray, np.ndarray, float]:
    """States at the end and after the first half, and the inactive fraction."""
    outcome = science_of(recorder)
    names = {"active": 0, "partial": PARTIAL, "dead": DEAD}
    order = range(1, recorder.count + 1)
    last, first = (
        np.array([names[found[identity]] for identity in order]) for found in (outcome.states, outcome.first_states)
    )
    return last, first, 1.0 - outcome.ensemble[-1]["active_fraction"]


def _plain(recorder: Recorder) -> np.ndarray:
    """(P,) bool: dead by range against noise."""
    flux = np.concatenate([batch.flux_e for batch in recorder.batches()])
    contrast = flux / flux[:5].mean(axis=0) - 1.0
    sigma = np.diff(contrast, axis=0).std(axis=0) / np.sqrt(2)
    width = 9
    smooth = np.stack([np.convolve(column, np.ones(width) / width, "valid") for column in contrast.T], axis=1)
    return np.ptp(smooth, axis=0) < 3 * sigma
