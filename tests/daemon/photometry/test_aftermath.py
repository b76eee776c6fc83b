from __future__ import annotations

import weakref
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import ndimage

from daemon.events import Event, EventKind
from daemon.photometry.aftermath import Aftermath, closing_detail
from daemon.photometry.fracture import Anatomy
from daemon.photometry.lookback import Step
from daemon.photometry.settle import Settled
from tests.daemon.photometry.test_fracture import DISC, PSF, X, cracked, features

LIGHT_E = 100.0
KINDS = [EventKind.CRACK_CLOSED, EventKind.FRAGMENT, EventKind.DISCONNECTED, EventKind.RECONNECTED]


class Parts:
    """A lookback of one particle whose light is a picture: what it shows now, and showed before it cracked."""

    def __init__(self) -> None:
        self.radius_px = np.sqrt(DISC.sum() / np.pi)
        self.now = DISC.astype(float)
        self.common_px = np.zeros(2)

    def before(self, index: int, onset_t_s: float) -> np.ndarray:
        return self._of(DISC.astype(float))

    def latest(self, index: int, since_t_s: float) -> np.ndarray:
        return self._of(self.now)

    def centroids(self, since_t_s: float) -> np.ndarray:
        return np.tile(self.common_px, (9, 1))

    def _of(self, light: np.ndarray) -> np.ndarray:
        found = LIGHT_E * features(light)
        found[-2:] *= self.radius_px
        return found


@pytest.fixture(scope="module")
def body() -> Anatomy:
    return Anatomy(DISC, PSF)


def change(light: np.ndarray) -> np.ndarray:
    return (features(light) - features(DISC.astype(float))) / features(DISC.astype(float))[:8].sum()


def broken(body: Anatomy, light: np.ndarray) -> tuple[Aftermath, Parts]:
    """Particle 12 at index 0 cracks at 10 s into `light`."""
    parts, aftermath = Parts(), Aftermath()
    parts.now = light
    seen = change(light)
    suspect = SimpleNamespace(detection=SimpleNamespace(index=0))
    crack = Settled(suspect, None, Step(10.0, -0.1, 1e-3), False, False, True, True, body.explain(seen), seen)
    aftermath.add(crack, 12, body, parts.before(0, 10.0))
    return aftermath, parts


def watched(aftermath: Aftermath, parts: Parts, lights: list[np.ndarray], start_s: float = 11.0) -> list[Event]:
    events = []
    for k, light in enumerate(lights):
        parts.now = light
        events += aftermath.look(start_s + 0.5 * k, 0.0, parts)
    return events


def test_a_line_that_fades_is_told_once(body):
    line = cracked(0.0, 2.0, darker=0.0)
    whole = line + np.where(np.abs(X - 2.0) < 0.8, DISC - line, 0.0)
    fading = [line + (whole - line) * share for share in np.clip(np.arange(40) / 20, 0, 1)]
    (event,) = watched(*broken(body, line), fading)
    assert (event.kind, event.particle_id) == (EventKind.CRACK_CLOSED, 12)
    assert 14.0 < event.t_s < event.detected_t_s < 25.0
    assert 0.02 < event.magnitude < 0.15


def test_a_line_that_stays_is_not_told(body):
    line = cracked(0.6, -2.0)
    assert watched(*broken(body, line), [line * (1.0 + 0.005 * k) for k in range(40)]) == []


def test_a_piece_that_stops_and_follows_again(body):
    line = cracked(0.0, 2.0)
    still = X > 2.0
    half = [line * np.where(still, 1.0, 1.0 + 0.004 * k) for k in range(20)]
    again = [half[-1] * (1.0 + 0.004 * k) for k in range(20)]
    aftermath, parts = broken(body, line)
    events = watched(aftermath, parts, [*half, *again])
    assert [event.kind for event in events] == [EventKind.FRAGMENT, EventKind.DISCONNECTED, EventKind.RECONNECTED]
    assert {event.particle_id for event in events} == {12}
    assert events[1].magnitude < 0 < events[2].magnitude, "it fell behind, then came on"


def test_pieces_become_particles_with_a_parent(body):
    line = cracked(0.0, 2.0)
    aftermath, parts = broken(body, line)
    assert aftermath.pieces(31, lambda index: (100.0, 200.0)) == []
    watched(aftermath, parts, [line * np.where(X > 2.0, 1.0, 1.0 + 0.004 * k) for k in range(20)])
    rows = aftermath.pieces(31, lambda index: (100.0, 200.0))
    assert [(row["particle_id"], row["parent_id"]) for row in rows] == [(31, 12), (32, 12)]
    assert sorted(row["state"] for row in rows) == ["active", "dead"]
    dead = next(row for row in rows if row["state"] == "dead")
    assert dead["x_px"] > 202.0 and sum(row["area_px"] for row in rows) == DISC.sum()


def test_a_step_that_takes_the_line_away_is_its_closing(body):
    line = cracked(0.0, 2.0, darker=0.0)
    aftermath, _ = broken(body, line)
    back = Settled(
        SimpleNamespace(detection=SimpleNamespace(index=0)), None, Step(20.0, 0.1, 1e-3), False, False, True, True,
        None, -change(line),
    )  # fmt: skip
    assert aftermath.closes(back)
    assert not aftermath.closes(back), "it is closed already"
    aftermath, _ = broken(body, line)
    up = Settled(back.suspect, None, back.step, False, False, True, True, None, 0.1 * change(1.5 * DISC))
    assert not aftermath.closes(up)


def test_without_shapes_nothing_is_followed(body):
    parts, aftermath = Parts(), Aftermath()
    suspect = SimpleNamespace(detection=SimpleNamespace(index=0))
    crack = Settled(suspect, None, Step(10.0, -0.1, 1e-3), False, False, True, True, None, np.full(14, np.nan))
    aftermath.add(crack, 12, body, parts.before(0, 10.0))
    aftermath.add(crack, 12, None, parts.before(0, 10.0))
    assert aftermath.wounds == [] and aftermath.look(20.0, 0.0, parts) == []


@pytest.mark.parametrize(
    ("sign", "electrode", "word"),
    [(-1, "cathode", "takes up"), (1, "cathode", "doubtful"), (1, "anode", "takes up"), (-1, "anode", "doubtful"),
     (0, "anode", "not known")],
)  # fmt: skip
def test_a_closing_crack_is_held_against_the_current(sign, electrode, word):
    assert word in closing_detail(sign, electrode)


@pytest.mark.parametrize("offset_px", [-5.0, 0.0, 4.0])
def test_pieces_that_brighten_alike_are_seen_to_in_spite_of_the_line(body, offset_px):
    line = cracked(0.0, offset_px, darker=0.15)
    aftermath, parts = broken(body, line)
    (wound,) = aftermath.wounds
    parts.now = line
    wound.count_from(parts.latest(0, 11.0), np.zeros(2))
    parts.now = 1.02 * line
    moved, left = wound.motion(parts.latest(0, 12.0), np.zeros(2))
    assert moved == pytest.approx([0.02, 0.02], rel=0.15) and left < 0.02


def test_what_all_particles_seem_to_move_by_is_no_motion_of_the_pieces(body):
    line = cracked(0.0, 2.0, darker=0.15)
    aftermath, parts = broken(body, line)
    (wound,) = aftermath.wounds
    parts.now = line
    wound.count_from(parts.latest(0, 11.0), np.array([0.5, 0.5]))
    parts.now = ndimage.shift(1.02 * line, (-0.05, 0.1), order=1)
    blind, _ = wound.motion(parts.latest(0, 12.0), np.array([0.5, 0.5]))
    moved, _ = wound.motion(parts.latest(0, 12.0), np.array([0.45, 0.6]))
    assert np.ptp(blind) > 0.02
    assert moved == pytest.approx([0.02, 0.02], abs=0.005)


def drifting(body: Anatomy, common: bool) -> list[Event]:
    """A particle that brightens alike and seems to move by 0.26 px, as all do, or as it does alone."""
    line = cracked(0.0, -2.0)
    aftermath, parts = broken(body, line)
    events = []
    for k in range(14):
        moved_px = np.array([0.0, 0.02 * k])
        parts.common_px = moved_px if common else np.zeros(2)
        light = ndimage.shift(line * (1.0 + 0.004 * k), moved_px, order=1)
        events += watched(aftermath, parts, [light], 11.0 + 0.5 * k)
    return events


def test_pieces_that_move_alike_are_not_told_apart_when_the_drift_is_measured_wrongly(body):
    assert EventKind.FRAGMENT in [event.kind for event in drifting(body, common=False)]
    assert drifting(body, common=True) == []


def test_a_closed_line_leaves_whole_pieces(body):
    line = cracked(0.0, 2.0, darker=0.0)
    aftermath, _ = broken(body, line)
    (wound,) = aftermath.wounds
    dark = wound.pieces[:8, :2].sum()
    wound.close()
    assert wound.closed and wound.since is None
    assert wound.pieces[:8, :2].sum() > dark + 0.02


def test_a_wound_does_not_keep_all_shapes_of_its_particle():
    """They take a megabyte, and any number of particles may crack."""
    shapes = Anatomy(DISC, PSF)
    aftermath, _ = broken(shapes, cracked(0.4, 0.0))
    assert len(aftermath.wounds) == 1
    known = weakref.ref(shapes)
    del shapes
    assert known() is None
