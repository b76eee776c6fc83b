"""Which particles a report shows one by one, and why: failed, cracked, unlike the others, typical."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from daemon.errors import StoreError, StoreReason
from daemon.events import Event, EventKind
from daemon.insight.cell_halves import CellHalf
from daemon.insight.run_data import RunData
from daemon.photometry.outliers import SHOWN_SIGMAS, robust_score
from daemon.report.style import TimeAxis

FAILED, CRACKED, UNUSUAL, TYPICAL = 4, 3, 3, 2
"""Most of each kind in the gallery."""
FAILED_RETENTION = 0.5
KEPT_SHARE = 0.9  # of the most particles measured in any cycle: the latest cycle with these stands for the run
UNITS = {"rate_per_h": "/h", "lag_s": "s", "swing": "", "hysteresis_v": "V"}
WORDS = {"rate_per_h": "rate", "lag_s": "lag", "swing": "swing", "hysteresis_v": "hysteresis"}
INACTIVE = "Never took part: its swing does not stand out of noise, or is a small part of the others'."
FAILURES = (EventKind.DISCONNECTED, EventKind.FRAGMENT)


@dataclass(frozen=True)
class Choice:
    """A particle of the gallery."""

    index: int
    kind: str
    reason: str
    """A sentence."""


def choose(run: RunData, cycle: int | None, time: TimeAxis) -> list[Choice]:
    """Failed ones first; each particle once. `cycle` stands for the run, `time` tells instants."""
    found: dict[int, Choice] = {}
    for choices, most in (
        (_failed(run, time), FAILED), (_cracked(run, time), CRACKED), (_unusual(run, cycle), UNUSUAL),
        (_typical(run, cycle), TYPICAL),
    ):  # fmt: skip
        fresh = [choice for choice in choices if choice.index not in found]
        found |= {choice.index: choice for choice in fresh[:most]}
    return list(found.values())


def named(run: RunData, particles: Sequence[int], cycle: int | None, time: TimeAxis) -> list[Choice]:
    """The particles with these ids, in that order. Raises `StoreError` (NO_PARTICLE)."""
    places = {identity: k for k, identity in enumerate(run.particle_id.tolist())}
    missing = [identity for identity in particles if identity not in places]
    if missing:
        raise StoreError(StoreReason.NO_PARTICLE, f"the run has no particle {missing[0]}")
    why = {choice.index: choice.reason for choice in choose(run, cycle, time)}
    return [Choice(places[i], "asked for", why.get(places[i], "Asked for by its id.")) for i in particles]


def standing_cycle(run: RunData, halves: Sequence[CellHalf]) -> int | None:
    """The cycle that stands for the run: the latest in which nearly as many lags are known as in any; None without.

    Not one that the end of the record cut, unless there is no other.
    """
    known = np.isfinite(run.cycles["lag_s"])
    cut = [half.cycle for half in halves if not half.whole]
    uncut = known & ~np.isin(run.cycles["cycle"], cut)
    known = uncut if uncut.any() else known
    if not known.any():
        return None
    numbers, counts = np.unique(run.cycles["cycle"][known].astype(int), return_counts=True)
    return int(numbers[counts >= KEPT_SHARE * counts.max()][-1])


def of_cycle(run: RunData, column: str, half: str, cycle: int | None) -> np.ndarray:
    """(P,) values of one half; NaN where it does not exist."""
    numbers, values = run.by_cycle(column, half)
    if cycle not in numbers.tolist():
        return np.full(len(run.particle_id), np.nan)
    return values[numbers.tolist().index(cycle)]


def last_retention(run: RunData) -> np.ndarray:
    """(P,) retention in the last cycle in which each has one, the smaller of charge and discharge.

    NaN where every half was the first of its rate, which is 1 by definition and tells nothing.
    """
    last = np.full((2, len(run.particle_id)), np.nan)
    for k, half in enumerate(("charge", "discharge")):
        for row in run.by_cycle("retention", half)[1]:
            last[k] = np.where(np.isfinite(row) & (row != 1.0), row, last[k])
    return np.fmin(*last)


def crack_counts(run: RunData) -> np.ndarray:
    """(P,) events of kind `crack`."""
    places = [k for _, k in _with_places(run, (EventKind.CRACK,))]
    return np.bincount(np.array(places, int), minlength=len(run.particle_id))


def first_cracks(run: RunData) -> np.ndarray:
    """(P,) time of each particle's first crack; infinite without one."""
    first = np.full(len(run.particle_id), np.inf)
    for event, k in _with_places(run, (EventKind.CRACK,)):
        first[k] = min(first[k], event.t_s)
    return first


def _failed(run: RunData, time: TimeAxis) -> list[Choice]:
    found = {}
    for event, k in _with_places(run, FAILURES):
        what = f"{event.kind.value.capitalize()} at {time.at(event.t_s)}."
        found[k] = Choice(k, "failed", what)
    retention, swing = last_retention(run), _largest_swing(run)
    cracks = {choice.index: f" {choice.reason}" for choice in _cracked(run, time)}
    for k in np.argsort(np.where(np.isfinite(retention), retention, np.inf), kind="stable").tolist():
        if retention[k] < FAILED_RETENTION and k not in found and run.particles["state"][k] != "lost":
            what = f"Its swing fell to {retention[k]:.1%} of what it was in the first half of this rate."
            found[k] = Choice(k, "failed", what + cracks.get(k, ""))
    dead = np.flatnonzero(run.particles["state"] == "dead")
    for k in dead[np.argsort(-np.nan_to_num(swing[dead]), kind="stable")].tolist():
        found.setdefault(k, Choice(k, "failed", _since(run, k) + cracks.get(k, "")))
    return list(found.values())


def _since(run: RunData, k: int) -> str:
    """Until when a dead particle took part: its halves stood out of noise then."""
    moved = np.isfinite(run.cycles["lag_s"]) & (run.cycles["particle_id"] == run.particle_id[k])
    if not moved.any():
        return INACTIVE
    return f"Took part until cycle {int(run.cycles['cycle'][moved].max())}, inactive since."


def _largest_swing(run: RunData) -> np.ndarray:
    values = np.vstack([run.by_cycle("swing", half)[1] for half in ("charge", "discharge")])
    return np.fmax.reduce(values, axis=0) if len(values) else np.full(len(run.particle_id), np.nan)


def _cracked(run: RunData, time: TimeAxis) -> list[Choice]:
    counts = crack_counts(run)
    found: dict[int, Choice] = {}
    for event, k in sorted(_with_places(run, (EventKind.CRACK,)), key=lambda pair: -abs(pair[0].magnitude)):
        more = f", one of {counts[k]}" if counts[k] > 1 else ""
        what = f"Cracked at {time.at(event.t_s)}: its contrast fell by {abs(event.magnitude):.3g}{more}."
        found.setdefault(k, Choice(k, "cracked", what))
    return list(found.values())


def _with_places(run: RunData, kinds: Sequence[EventKind]) -> list[tuple[Event, int]]:
    """Events of these kinds with the index of their particle."""
    places = {identity: k for k, identity in enumerate(run.particle_id.tolist())}
    mine = [event for event in run.events if event.kind in kinds and event.particle_id is not None]
    return [(event, places[event.particle_id]) for event in mine if event.particle_id in places]


def _scores(run: RunData, cycle: int | None) -> tuple[np.ndarray, list[tuple[str, str]]]:
    """(S, P) robust scores of each measure of each half in the standing cycle; of active particles that do not fold."""
    active = np.isin(run.particles["state"], ("active", "partial")) & (run.particles["calibration"] != "folded")
    names = [(column, half) for column in UNITS for half in ("charge", "discharge")]
    rows = [robust_score(np.where(active, of_cycle(run, column, half, cycle), np.nan)) for column, half in names]
    return np.array(rows).reshape(len(names), len(active)), names


def _unusual(run: RunData, cycle: int | None) -> list[Choice]:
    scores, names = _scores(run, cycle)
    size = np.nan_to_num(np.abs(scores), nan=0.0)
    worst = size.max(axis=0)
    found = []
    for k in np.argsort(-worst, kind="stable").tolist():
        if worst[k] < SHOWN_SIGMAS:
            break
        column, half = names[int(size[:, k].argmax())]
        value = of_cycle(run, column, half, cycle)[k]
        found.append(Choice(k, "unusual", (
            f"Its {WORDS[column]} on {half}, {value:.3g} {UNITS[column]}".rstrip()
            + f", lies {worst[k]:.1f} robust standard deviations from the median of cycle {cycle}."
        )))  # fmt: skip
    return found


def _typical(run: RunData, cycle: int | None) -> list[Choice]:
    scores, _ = _scores(run, cycle)
    known = np.isfinite(scores)
    enough = known.sum(axis=0) >= max(2, known.any(axis=1).sum() // 2)
    squares = np.where(known, scores, 0.0) ** 2
    distance = np.sqrt(squares.sum(axis=0) / np.maximum(known.sum(axis=0), 1))
    distance = np.where(enough, distance, np.inf)
    what = "Close to the median of all in rate, lag, swing and hysteresis: for comparison."
    nearest = [k for k in np.argsort(distance, kind="stable").tolist() if np.isfinite(distance[k])]
    if not nearest and len(run.particle_id):
        contrast = np.flatnonzero(np.isin(run.particles["state"], ("active", "partial")))
        return [Choice(int(k), "active", "Without cycles nothing tells which is typical.") for k in contrast]
    return [Choice(k, "typical", what) for k in nearest]
