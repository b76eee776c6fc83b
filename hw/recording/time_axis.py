"""A recording's time axis: which samples have a usable time, and in which unit it counts."""

from __future__ import annotations

import numpy as np

from hw.errors import RecordingError, RecordingReason
from hw.recording.faults import Fault

UNIT_S = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
UNIT_WORDS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds"}
_SPELLINGS = {"µs": "us", "μs": "us", "sec": "s"} | {word: unit for unit, word in UNIT_WORDS.items()}
_SHORTEST_S = 2e-3  # 500 frames/s: faster than any full-frame camera of this field
_EPOCH_S = (1.2e9, 2.5e9)  # 2008 to 2049 as seconds since 1970
_LARGEST = 1e17  # beyond it neighbouring doubles are further apart than frames


def advancing(t: np.ndarray, dataset: str, faults: list[Fault]) -> np.ndarray:
    """Indices of the samples whose time is finite and strictly rising, the most that one clock explains.

    Single outliers are left out; at a lasting step back the longer side is kept. What is left out becomes a fault;
    `RecordingError` when it is more than half.
    """
    kept = _longest_rising(t)
    if len(kept) == len(t):
        return kept
    first = _first_missing(kept, len(t))
    what = _what_is_wrong(t, first)
    if 2 * len(kept) < len(t):
        detail = f"dataset '{dataset}' {what} at index {first}; only {len(kept)} of {len(t)} times can be used"
        raise RecordingError(RecordingReason.BAD_DATASET, detail, first)
    faults.append(Fault.bad_dataset(f"'{dataset}' {what} at index {first}; {len(t) - len(kept)} left out", first))
    return kept


def _longest_rising(t: np.ndarray) -> np.ndarray:
    kept = np.flatnonzero(np.isfinite(t))
    kept = kept[np.abs(t[kept]) < _LARGEST]
    if len(kept) == 0:
        return kept
    kept = kept[np.concatenate(([True], np.diff(t[kept]) != 0))]
    for _ in range(3):  # neighbouring outliers show up one after the other
        spikes = _spikes(t[kept])
        kept = np.delete(kept, spikes)
    cuts = np.flatnonzero(np.diff(t[kept]) <= 0) + 1
    edges = np.concatenate(([0], cuts, [len(kept)]))
    longest = int(np.argmax(np.diff(edges)))
    return kept[edges[longest] : edges[longest + 1]]


def _spikes(t: np.ndarray) -> np.ndarray:
    """Positions whose removal alone mends a step back: one late sample, or one early one."""
    at = np.flatnonzero(np.diff(t) <= 0)
    after = np.append(t, np.inf)[at + 2]
    before = np.insert(t, 0, -np.inf)[at]
    late = after > t[at]
    early = ~late & (t[at + 1] > before)
    return np.unique(np.concatenate((at[late] + 1, at[early])))


def _first_missing(kept: np.ndarray, count: int) -> int:
    gaps = np.flatnonzero(kept != np.arange(len(kept)))
    return int(gaps[0]) if len(gaps) else min(len(kept), count - 1)


def _what_is_wrong(t: np.ndarray, index: int) -> str:
    if not np.isfinite(t[index]):
        return "is not a number"
    before = t[:index][np.isfinite(t[:index])]
    if len(before) and t[index] == before[-1]:
        return "does not advance"
    return "runs backwards"


def stated_unit(declared: str, given: str | None) -> tuple[str, str] | None:
    """Unit of a time axis as given by the user, or declared in the file; None when neither says."""
    if given:
        return given, "as given"
    word = declared.strip().lower()
    word = _SPELLINGS.get(word, word)
    return (word, "as the dataset's attribute says") if word in UNIT_S else None


def recognised_unit(t: np.ndarray, cell_span_s: float, exposure_us: float | None) -> tuple[str, str]:
    """Unit of the rising times `t`, and what tells so.

    Recognised by the length of the cell's record (NaN when there is none), by counting from 1970, else as the shortest
    frame interval that is neither above 500 frames/s nor below the exposure.
    """
    if len(t) < 2:
        return "s", "there is one frame"
    span, interval = float(t[-1] - t[0]), float(np.median(np.diff(t)))
    for unit, factor in UNIT_S.items():
        if cell_span_s > 0 and abs(np.log10(span * factor / cell_span_s)) <= 1:
            return unit, "by the length of the cell's record"
    for unit, factor in UNIT_S.items():
        if _EPOCH_S[0] < t[0] * factor < _EPOCH_S[1] and interval * factor < 500:
            return unit, "counting from 1970"
    shortest_s = max(_SHORTEST_S, 0.9e-6 * (exposure_us or 0.0))
    fitting = [unit for unit in ("us", "ms") if interval * UNIT_S[unit] >= shortest_s]
    return fitting[0] if fitting else "s", "by the frame interval"
