"""Steps and avalanches that the ensemble hides: what of them is told, and how well."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from daemon.events import Event
from tests.accuracy.effort import Effort
from tests.accuracy.traces import RATE_HZ, SIGMA, Jump, batches, drifting_ensemble, events_of
from tests.bench.figures import Figure, at_least, at_most

TITLE = "Abrupt steps"
INTRO = """\
Contrasts of 120 particles whose whole electrode transforms, minutes a particle, under a lamp that wanders by 1e-3 and
ripples by 5e-4; noise of the mask-and-ring bound (3e-4 to 1.1e-3 an exposure), 100 exposures/s. A third of the
particles step, up or down, once in a while; another sixth goes in avalanches, three to five steps of one sign a few
seconds apart. Steps are 3 to 12 sigma of a mean of 0.1 s. An event counts for a step of its particle within 0.5 s.
The plain pipeline thresholds differences of successive means of 0.1 s, each particle's minus the median's, at 5
sigma."""
PARTICLES = 120
WITHIN_S = 0.5
KINDS = ("step", "crack")
BINS = ((3.0, 4.0), (4.0, 6.0), (6.0, 12.0))


def run(effort: Effort) -> list[Figure]:
    """Precision, recall, sizes."""
    seconds = 120.0 if effort.static_frames > 300 else 60.0
    scores = [_Score(seed, seconds) for seed in effort.seeds]
    plain = [_Score(seed, seconds, plain=True) for seed in effort.seeds]
    size = np.concatenate([score.size_error for score in scores])
    figures = [
        at_least("precision", ratio(scores, "true", "told"), 0.95, digits=3),
        at_least("recall", ratio(scores, "found", "made"), 0.95, digits=3),
    ]
    figures = [
        Figure(f.name, f.measured, f.goal, f.met, f"{ratio(plain, *names):.3f}")
        for f, names in zip(figures, (("true", "told"), ("found", "made")), strict=True)
    ]
    for low, high in BINS:
        found = sum(score.found_between(low, high)[0] for score in scores)
        made = sum(score.found_between(low, high)[1] for score in scores)
        figures.append(
            Figure(f"  recall from {low:g} to {high:g} sigma, {made} steps", f"{found / max(made, 1):.3f}", "")
        )
    late = np.concatenate([score.delay_s for score in scores])
    return [
        *figures,
        at_most("error of the size, median", 100 * float(np.median(size)), 5.0, "%", digits=1),
        Figure("  from 3 to 4 sigma, median", f"{100 * _median_of(scores, 3, 4):.1f} %", ""),
        Figure("delay of `detected_t_s`, median", f"{np.median(late):.2f} s", ""),
        Figure("  95th percentile", f"{np.percentile(late, 95):.2f} s", ""),
    ]  # fmt: skip


def _median_of(scores: list[_Score], low: float, high: float) -> float:
    errors = np.concatenate([s.size_error[(s.found_sigmas >= low) & (s.found_sigmas < high)] for s in scores])
    return float(np.median(errors)) if errors.size else float("nan")


def ratio(scores: list[_Score], part: str, whole: str) -> float:
    """Sum of one count over sum of another."""
    return sum(getattr(s, part) for s in scores) / max(sum(getattr(s, whole) for s in scores), 1)


class _Score:
    """One seed's events beside its truth."""

    def __init__(self, seed: int, seconds: float, plain: bool = False) -> None:
        rng = np.random.default_rng([seed, 31])
        sigma = rng.uniform(*SIGMA, PARTICLES)
        jumps = _jumps(rng, sigma, seconds)
        contrast = with_jumps(drifting_ensemble(rng, PARTICLES, seconds), jumps)
        measured = batches(rng, contrast, sigma)
        if plain:
            told = _plain_steps(np.concatenate([b.flux_e / 1e6 - 1 for b in measured]), sigma)
        else:
            told = [e for e in events_of(measured, PARTICLES) if e.kind in KINDS]
        self._sigmas = np.array([abs(j.size) / (sigma[j.index] / np.sqrt(10)) for j in jumps])
        of_event, of_jump = matched(told, jumps, WITHIN_S)
        self._found = of_jump >= 0
        self.told, self.true = len(told), int((of_event >= 0).sum())
        self.made, self.found = len(jumps), int(self._found.sum())
        pairs = [(told[of_jump[k]], jumps[k]) for k in np.flatnonzero(self._found)]
        self.size_error = np.array([abs(e.magnitude / j.size - 1) for e, j in pairs])
        self.found_sigmas = self._sigmas[self._found]
        self.delay_s = np.array([e.detected_t_s - j.t_s for e, j in pairs])
        self.false = [e for e, k in zip(told, of_event, strict=True) if k < 0]
        self.missed = [j for j, k in zip(jumps, of_jump, strict=True) if k < 0]

    def found_between(self, low: float, high: float) -> tuple[int, int]:
        inside = (self._sigmas >= low) & (self._sigmas < high)
        return int(self._found[inside].sum()), int(inside.sum())


def _jumps(rng: np.random.Generator, sigma: np.ndarray, seconds: float) -> list[Jump]:
    jumps = []
    for index in range(len(sigma) // 2):
        avalanche = index % 3 == 2
        t_s, sign = rng.uniform(15.0, 25.0), rng.choice([-1.0, 1.0])
        while t_s < seconds - 5.0:
            for _ in range(rng.integers(3, 6) if avalanche else 1):
                size = sign * rng.uniform(3.0, 12.0) * sigma[index] / np.sqrt(10)
                jumps.append(Jump(index, t_s, float(size)))
                t_s += rng.uniform(2.0, 5.0)
            t_s += rng.uniform(10.0, 30.0)
            sign = sign if avalanche else rng.choice([-1.0, 1.0])
    return [jump for jump in jumps if jump.t_s < seconds - 5.0]


def with_jumps(contrast: Iterator[np.ndarray], jumps: list[Jump]) -> Iterator[np.ndarray]:
    """The same with each jump from its first frame on."""
    frame = np.array([round(j.t_s * RATE_HZ) for j in jumps])
    index, size = np.array([j.index for j in jumps]), np.array([j.size for j in jumps])
    first, offset = 0, np.zeros(0)
    for part in contrast:
        offset = np.zeros(part.shape[1]) if first == 0 else offset
        out = part + offset
        for k in np.flatnonzero((frame >= first) & (frame < first + len(part))):
            out[frame[k] - first :, index[k]] += size[k]
            offset[index[k]] += size[k]
        first += len(part)
        yield out


def matched(told: list[Event], jumps: list[Jump], within_s: float) -> tuple[np.ndarray, np.ndarray]:
    """For each event its jump, for each jump its event, nearest in time first; -1 without."""
    of_event, of_jump = np.full(len(told), -1), np.full(len(jumps), -1)
    pairs = sorted(
        (abs(event.t_s - jump.t_s), k, j)
        for j, jump in enumerate(jumps)
        for k, event in enumerate(told)
        if event.particle_id == jump.index + 1 and abs(event.t_s - jump.t_s) <= within_s
    )
    for _, k, j in pairs:
        if of_event[k] < 0 and of_jump[j] < 0:
            of_event[k], of_jump[j] = j, k
    return of_event, of_jump


def _plain_steps(contrast: np.ndarray, sigma: np.ndarray) -> list[Event]:
    """Differences of successive means of 0.1 s above 5 sigma, the median of all taken off."""
    means = contrast[: len(contrast) // 10 * 10].reshape(-1, 10, contrast.shape[1]).mean(axis=1)
    change = np.diff(means, axis=0)
    change -= np.median(change, axis=1, keepdims=True)
    rows, columns = np.nonzero(np.abs(change) > 5.0 * sigma * np.sqrt(2 / 10))
    return [
        Event("step", (r + 1) * 0.1, (r + 2) * 0.1, int(c) + 1, float(change[r, c]))
        for r, c in zip(rows.tolist(), columns.tolist(), strict=True)
    ]
