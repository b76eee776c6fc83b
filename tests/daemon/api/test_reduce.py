"""Min-max reduction keeps every extreme, in order, however the series is cut."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from daemon.api.reads import reduced_rows
from daemon.api.reduce import bucket_starts, bucket_width_s, extreme_rows
from daemon.api.traces import Reducer

values_of = st.integers(1, 300).flatmap(
    lambda n: arrays(np.float64, (2, n), elements=st.floats(-10, 10, width=16) | st.just(np.nan))
)


def naive_extreme_rows(values: np.ndarray, t_s: np.ndarray, width_s: float) -> list[int]:
    """The same, one bucket and one column at a time."""
    kept = set()
    for bucket in sorted(set(np.floor(t_s / width_s))):
        rows = [row for row in range(len(t_s)) if np.floor(t_s[row] / width_s) == bucket]
        for column in values:
            known = [row for row in rows if not np.isnan(column[row])]
            kept.add(min(known, key=lambda row: column[row]) if known else rows[0])
            kept.add(max(known, key=lambda row: column[row]) if known else rows[0])
    return sorted(kept)


@given(values_of, st.sampled_from([0.25, 1.0, 8.0, 1024.0]))
def test_the_rows_are_those_of_the_obvious_way(values: np.ndarray, width_s: float) -> None:
    t_s = np.cumsum(np.tile([0.1, 0.7, 0.0], 100))[: values.shape[1]]
    rows = extreme_rows(values, bucket_starts(t_s, width_s))
    assert rows.tolist() == naive_extreme_rows(values, t_s, width_s)


@given(values_of, st.integers(4, 60))
def test_extremes_stay_and_the_bound_holds(values: np.ndarray, points: int) -> None:
    t_s = np.arange(values.shape[1]) * 0.37
    width_s = bucket_width_s(t_s[-1] - t_s[0], points, 1)
    rows = extreme_rows(values[:1], bucket_starts(t_s, width_s))
    assert (np.diff(rows) > 0).all()
    assert len(rows) <= max(points, 4)
    if not np.isnan(values[0]).all():
        assert np.nanmax(values[0][rows]) == np.nanmax(values[0])
        assert np.nanmin(values[0][rows]) == np.nanmin(values[0])


@given(values_of, st.integers(4, 60), st.lists(st.integers(1, 50), min_size=1, max_size=20))
def test_piece_by_piece_is_the_same_as_at_once(values: np.ndarray, points: int, cuts: list[int]) -> None:
    t_s = np.arange(values.shape[1]) * 0.37 + 3.0

    def window(low: int, high: int) -> dict[str, np.ndarray]:
        both = {"contrast": values[:1, low:high].T, "flags": np.zeros((high - low, 1), np.uint16)}
        return {"frame": np.arange(low, high), "t_s": t_s[low:high]} | both

    def reduced(edges: list[int], window_frames: int) -> dict[str, np.ndarray]:
        reducer = Reducer(["contrast", "flags"], 1, points)
        reducer._window_frames = window_frames
        for low, high in itertools.pairwise(edges):
            reducer.add(window(low, high))
        return reducer.finish()[0]

    count = values.shape[1]
    edges = sorted({0, count, *(edge for edge in np.cumsum(cuts).tolist() if edge < count)})
    pieces, whole = reduced(edges, max(points, 7)), reduced([0, count], 10_000)
    for name in whole:
        np.testing.assert_array_equal(pieces[name], whole[name])
    assert len(whole["t_s"]) == count or count > points


def test_a_gap_stays_a_gap() -> None:
    values = np.array([[1.0, 2.0, np.nan, np.nan, 3.0, 4.0]])
    t_s = np.arange(6.0)
    rows = extreme_rows(values, bucket_starts(t_s, 2.0))
    assert rows.tolist() == [0, 1, 2, 4, 5]


def test_nothing_reduces_to_nothing() -> None:
    empty = np.empty(0)
    assert extreme_rows(np.empty((1, 0)), bucket_starts(empty, 1.0)).size == 0
    assert Reducer(["contrast"], 0, 10).finish() == []
    [series] = Reducer(["contrast"], 1, 10).finish()
    assert {name: len(column) for name, column in series.items()} == {"frame": 0, "t_s": 0, "contrast": 0}


@pytest.mark.parametrize("points", [4, 10, 100])
def test_rows_are_reduced_by_all_their_columns(points: int) -> None:
    rows = [{"t": float(n), "a": float(n == 50), "b": -float(n == 70), "c": None} for n in range(200)]
    kept = reduced_rows(rows, "t", ["a", "b", "c"], points)
    assert rows[50] in kept
    assert rows[70] in kept
    assert len(kept) < 200
    assert reduced_rows(rows, "t", ["a"], 200) is rows
