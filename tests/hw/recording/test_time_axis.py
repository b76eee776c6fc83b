import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hw.errors import RecordingError
from hw.recording.time_axis import advancing, recognised_unit, stated_unit

NO_CELL = float("nan")


def kept(t):
    faults = []
    return advancing(np.asarray(t, float), "t", faults).tolist(), faults


def test_a_rising_axis_is_kept_whole():
    assert kept([0, 1, 2]) == ([0, 1, 2], [])


@pytest.mark.parametrize(
    ("t", "expected", "words"),
    [
        ([0, 1, 2, 1.5, 4, 5], [0, 1, 2, 4, 5], "runs backwards at index 3"),
        ([0, 1, 900, 3, 4, 5], [0, 1, 3, 4, 5], "runs backwards at index 2"),
        ([0, 1, 2, 2, 4, 5], [0, 1, 2, 4, 5], "does not advance at index 3"),
        ([0, np.nan, 2, 3, np.inf, 5], [0, 2, 3, 5], "is not a number at index 1; 2 left out"),
        ([0, 1, 2, 3, 4, 0], [0, 1, 2, 3, 4], "runs backwards at index 5"),
        ([9, 0, 1, 2, 3, 4], [1, 2, 3, 4, 5], "runs backwards at index 0"),
        ([10, 11, 12, 13, 14, 15, 0, 1, 2], [0, 1, 2, 3, 4, 5], "index 6"),
    ],
)
def test_what_does_not_fit_is_left_out(t, expected, words):
    indices, faults = kept(t)
    assert indices == expected
    assert words in faults[0].detail


@pytest.mark.parametrize("t", [[5, 4, 3, 2, 1, 0], [np.nan] * 4, [1, 1, 1, 1, 1], [0, 1, 0, 1, 0, 1, 0, 1, 0, 1]])
def test_mostly_wrong_is_refused(t):
    with pytest.raises(RecordingError, match=r"'t'.*at index"):
        kept(t)


@given(hnp.arrays(float, st.integers(0, 40), elements=st.floats(allow_nan=True, allow_infinity=True)))
def test_whatever_comes_rises_or_is_refused(t):
    faults = []
    with np.errstate(all="ignore"):
        try:
            indices = advancing(t, "t", faults)
        except RecordingError as error:
            assert error.index is not None and 0 <= error.index < len(t)
            return
        assert np.isfinite(t[indices]).all()
        assert (np.diff(t[indices]) > 0).all() and (np.diff(indices) > 0).all()
    assert bool(faults) == (len(indices) < len(t))
    assert 2 * len(indices) >= len(t)


@pytest.mark.parametrize(
    ("interval", "count", "cell_span_s", "exposure_us", "unit"),
    [
        (0.01, 1000, NO_CELL, None, "s"),
        (10.0, 1000, NO_CELL, None, "ms"),
        (10_000.0, 1000, NO_CELL, None, "us"),
        (1.0, 100, NO_CELL, None, "s"),
        (0.0005, 1000, NO_CELL, None, "s"),
        (10.0, 1000, 10_000.0, None, "s"),
        (10.0, 1000, 12.0, None, "ms"),
        (10_000.0, 1000, 12.0, None, "us"),
        (10_000.0, 1000, 9_000.0, None, "ms"),
        (10.0, 1000, NO_CELL, 20_000.0, "s"),
        (0.01, 60, 3600.0, None, "s"),
    ],
)
def test_the_unit_is_recognised(interval, count, cell_span_s, exposure_us, unit):
    assert recognised_unit(interval * np.arange(count), cell_span_s, exposure_us)[0] == unit


@pytest.mark.parametrize(("start", "interval", "unit"), [(1.7e9, 20.0, "s"), (1.7e12, 20.0, "ms"), (1.7e15, 2e4, "us")])
def test_times_since_1970_tell_their_unit(start, interval, unit):
    assert recognised_unit(start + interval * np.arange(50), NO_CELL, None) == (unit, "counting from 1970")


def test_a_device_clock_is_not_taken_for_1970():
    assert recognised_unit(1.7e9 + 1e4 * np.arange(50), NO_CELL, None)[0] == "us"


def test_what_is_stated_is_believed():
    assert stated_unit("", "ms") == ("ms", "as given")
    assert stated_unit(" Milliseconds ", None) == ("ms", "as the dataset's attribute says")
    assert stated_unit("µs", None)[0] == "us"
    assert stated_unit("fortnights", None) is None
    assert stated_unit("us", "s")[0] == "s"
