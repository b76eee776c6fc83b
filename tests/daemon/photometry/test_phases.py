import numpy as np
import pytest

from daemon.events import Event, EventKind
from daemon.photometry.phases import PhaseTracker


def follow(fractions: list[float] | np.ndarray, span: float = -0.2, sigma: float = 1e-4) -> list[Event]:
    tracker = PhaseTracker(np.array([7]))
    tracker.calibrate(np.array([True]), np.array([span]))
    events = []
    for t_s, fraction in enumerate(fractions):
        events += tracker.add(float(t_s), 100.0 + t_s, np.array([fraction]), np.array([sigma]))
    return events


def test_a_full_transformation_has_an_onset_and_an_end() -> None:
    onset, complete = follow(np.linspace(0, 1, 101))
    assert (onset.kind, complete.kind) == (EventKind.PHASE_ONSET, EventKind.PHASE_COMPLETE)
    assert onset.t_s == pytest.approx(5.0, abs=1.0)
    assert onset.detected_t_s == pytest.approx(6.0, abs=1.0)
    assert complete.t_s == 95.0
    assert onset.particle_id == 7
    assert onset.magnitude == pytest.approx(0.05 * -0.2)
    assert complete.magnitude == pytest.approx(0.95 * -0.2)
    assert onset.detected_host_t_s == 100.0 + onset.detected_t_s


def test_the_way_back_counts_from_the_other_end() -> None:
    onset, complete = follow(np.linspace(1, 0, 101))
    assert onset.t_s == pytest.approx(5.0, abs=1.0)
    assert onset.magnitude == pytest.approx(0.05 * 0.2)
    assert complete.kind is EventKind.PHASE_COMPLETE
    assert complete.t_s == 95.0


def test_noise_around_a_threshold_gives_one_event() -> None:
    rng = np.random.default_rng(0)
    slow = np.r_[np.zeros(10), np.linspace(0.0, 0.15, 3000)] + rng.normal(0, 0.01, 3010)
    assert [event.kind for event in follow(slow, sigma=0.002)] == [EventKind.PHASE_ONSET]


def test_turning_back_ends_nothing_and_can_begin_again() -> None:
    kinds = [event.kind for event in follow([0, 0, 0.3, 0.5, 0.2, 0.0, 0.0, 0.3, 0.99])]
    assert kinds == [EventKind.PHASE_ONSET, EventKind.PHASE_ONSET, EventKind.PHASE_COMPLETE]


def test_a_particle_first_seen_on_its_way_says_nothing_until_an_end() -> None:
    assert follow([0.5, 0.7, 0.99, 0.99]) == []


def test_unknown_fractions_change_nothing() -> None:
    nan = float("nan")
    assert len(follow([0.0, nan, nan, 0.5, nan, 1.0])) == 2


def test_expected_sign_follows_the_transformation() -> None:
    tracker = PhaseTracker(np.array([7]))
    tracker.calibrate(np.array([True]), np.array([-0.2]))
    assert tracker.expected_sign(0) == 0
    for fraction in (0.0, 0.5):
        tracker.add(0.0, 0.0, np.array([fraction]), np.array([1e-4]))
    assert tracker.expected_sign(0) == -1


def test_particles_without_two_phases_are_not_followed() -> None:
    tracker = PhaseTracker(np.array([7, 8]))
    tracker.calibrate(np.zeros(2, bool), np.ones(2))
    assert not tracker.active
