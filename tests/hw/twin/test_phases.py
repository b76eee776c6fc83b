import numpy as np
import pytest

from hw.twin.phases import PhaseWatch


def events_of(course):
    """(time, kind) of one particle's events on its way through `course`."""
    watch = PhaseWatch(np.array([course[0]]))
    return [(n, event.kind) for n, x in enumerate(course) for event in watch.look(float(n), np.array([x]))]


ONSET, COMPLETE = "phase_onset", "phase_complete"


@pytest.mark.parametrize(
    "course, want",
    [
        ([0.0, 0.04, 0.05, 0.5, 0.94, 0.95, 1.0], [(2, ONSET), (5, COMPLETE)]),
        ([1.0, 0.96, 0.95, 0.5, 0.05, 0.0], [(2, ONSET), (4, COMPLETE)]),
        ([0.0, 0.06, 0.04, 0.06, 0.99], [(1, ONSET), (4, COMPLETE)]),
        ([0.0, 0.3, 0.0, 0.3], [(1, ONSET), (3, ONSET)]),
        ([0.0, 1.0, 0.0], [(1, ONSET), (1, COMPLETE), (2, ONSET), (2, COMPLETE)]),
        ([0.3, 0.6, 1.0], [(2, COMPLETE)]),
        ([np.nan, np.nan], []),
    ],
)
def test_passings(course, want):
    assert events_of(course) == want


def test_particles_are_watched_apart():
    watch = PhaseWatch(np.array([0.0, 1.0, 0.0]))
    found = watch.look(7.0, np.array([0.2, 0.2, 0.0]))
    assert [(event.kind, event.particle, event.t_s) for event in found] == [(ONSET, 0, 7.0), (ONSET, 1, 7.0)]
