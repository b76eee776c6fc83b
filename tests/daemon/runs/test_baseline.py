import pytest

from daemon.runs.baseline import baseline_seconds


@pytest.mark.parametrize(
    ("asked_s", "duration_s", "expected_s"),
    [
        (None, 1000.0, 10.0),  # the first 1 %
        (None, 100.0, 1.0),
        (None, 5.0, 1.0),  # at least a second
        (None, 0.0, 1.0),
        (None, None, 1.0),  # live: nobody knows how long it will be
        (30.0, 1000.0, 30.0),
        (0.2, None, 0.2),
    ],
)
def test_length(asked_s, duration_s, expected_s):
    assert baseline_seconds(asked_s, duration_s) == pytest.approx(expected_s)
