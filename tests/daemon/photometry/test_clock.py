import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.photometry.clock import ENVELOPE_POINTS, ArrivalEnvelope, ClockRelation


def fed(relation: ClockRelation, offset_s: float, seconds: float, late_s: float, drift: float = 0.0) -> ClockRelation:
    """Frames and samples at 10 Hz whose records reach the host late by an exponential delay."""
    rng = np.random.default_rng(3)
    for t_s in np.arange(0.0, seconds, 0.1):
        host = 5000.0 + t_s
        relation.add_frame(t_s, host + rng.exponential(late_s))
        relation.add_sample((t_s - offset_s) * (1.0 + drift), host + rng.exponential(late_s))
    return relation


def test_one_clock_is_exact() -> None:
    relation = ClockRelation("twin", "twin")
    relation.start(12.5)
    assert relation.offset_s == -12.5
    assert relation.run_time(20.0) == 7.5
    assert relation.sigma_s == 0.0


def test_empty_ids_are_not_one_clock() -> None:
    assert not ClockRelation("", "").same_clock


def test_offset_is_unknown_before_both_sides_spoke() -> None:
    relation = ClockRelation("a", "b")
    relation.start(0.0)
    relation.add_frame(0.0, 100.0)
    assert math.isnan(relation.offset_s)
    assert relation.sigma_s == math.inf
    relation.add_sample(7.0, 101.0)
    assert relation.offset_s == pytest.approx(-6.0)


def test_offset_from_arrivals_lies_within_its_uncertainty() -> None:
    relation = fed(ClockRelation("camera", "cell"), 42.0, 300.0, 0.02)
    assert abs(relation.offset_s - 42.0) < 3.0 * relation.sigma_s
    assert relation.sigma_s < 0.02


def test_a_drifting_clock_is_followed() -> None:
    relation = fed(ClockRelation("camera", "cell"), 0.0, 3600.0, 0.01, drift=1e-4)
    assert relation.run_time(3590.0 * 1.0001) == pytest.approx(3590.0, abs=0.01)


def test_accelerated_clocks_use_their_rates() -> None:
    relation = ClockRelation("a", "b", camera_rate=60.0, cell_rate=60.0)
    for host in np.arange(0.0, 10.0, 0.1):
        relation.add_frame(60.0 * host, host)
        relation.add_sample(60.0 * host + 5.0, host + 0.001)
    assert relation.offset_s == pytest.approx(-5.0, abs=0.1)


def test_memory_is_bounded() -> None:
    envelope = ArrivalEnvelope()
    for k in range(20 * ENVELOPE_POINTS):
        envelope.add(float(k), float(k) + 0.01 * (k % 7))
    assert len(envelope._pairs) < ENVELOPE_POINTS
    line = envelope.line()
    assert line is not None
    assert line.host(1000.0) == pytest.approx(1000.0, abs=0.01)


@given(st.lists(st.tuples(st.floats(), st.floats()), max_size=60))
def test_any_pairs_are_survived(pairs: list[tuple[float, float]]) -> None:
    relation = ClockRelation("a", "b")
    for device, host in pairs:
        relation.add_frame(device, host)
        relation.add_sample(host, device)
    assert isinstance(relation.offset_s, float)
    assert relation.sigma_s >= 0 or math.isnan(relation.sigma_s)
