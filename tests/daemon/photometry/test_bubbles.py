from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from daemon.engine.measures import MaskSet
from daemon.events import Event, EventKind
from daemon.photometry.bubbles import Bubbles
from tests.daemon.photometry.synthetic import mask_set
from tests.daemon.photometry.test_classify import facts

HEIGHT, WIDTH, APART_PX, RADIUS_PX = 320, 400, 25, 6.0
RATE_HZ = 50.0
PLACES = np.array([(y, x) for y in range(20, HEIGHT, APART_PX) for x in range(20, WIDTH, APART_PX)], float)


def masks(places: np.ndarray = PLACES) -> MaskSet:
    area = np.full(len(places), np.pi * RADIUS_PX**2)
    count = np.arange(1, len(places) + 1)
    return MaskSet(np.zeros((HEIGHT, WIDTH), np.int32), count, *places.T, {"area_px": area}, 1.5, None)


class Watched:
    """Frames of particles that a disc crosses from left to right; what lies in it is dimmed, rings are not."""

    def __init__(self, radius_px: float, places: np.ndarray = PLACES, seed: int = 3, first: int = 100) -> None:
        rng, frames = np.random.default_rng(seed), 400
        self.t_s = np.arange(frames) / RATE_HZ
        centre_x = -radius_px - 20 + (np.arange(frames) - first) * 5.0
        far = np.hypot(places[:, 0] - rng.uniform(120, 200), places[:, 1] - centre_x[:, None])
        under = (far < radius_px + RADIUS_PX) & (np.arange(frames)[:, None] >= first)
        self.contrast = 1.0 - 0.1 * under + rng.normal(0.0, 1e-3, under.shape)
        self.onsets = {int(index): int(under[:, index].argmax()) for index in np.flatnonzero(under.any(axis=0))}
        self.now = 0

    def around(self, t_s: float, reach_s: float) -> tuple[np.ndarray, np.ndarray]:
        kept = (np.abs(self.t_s - t_s) <= reach_s) & (np.arange(len(self.t_s)) <= self.now)
        return self.t_s[kept], self.contrast[kept]

    def trace(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        kept = slice(0, self.now + 1)
        return self.t_s[kept], self.contrast[kept, index]

    def events(self, bubbles: Bubbles, frames: int = 600) -> list[Event]:
        """Each touch is settled 0.7 s after its onset."""
        told: list[Event] = []
        for frame in range(frames):
            self.now = frame
            now = facts(frame, 1.0 / RATE_HZ)
            for index, onset in self.onsets.items():
                if frame - 35 == onset:
                    bubbles.touch(touch(index, onset / RATE_HZ, now), self)
            told += bubbles.due(now, self)
        return told


def touch(index, onset_t_s, now, passing=True):
    suspect = SimpleNamespace(onset_t_s=onset_t_s, detection=SimpleNamespace(index=index))
    return SimpleNamespace(suspect=suspect, facts=now, passing=passing)


NOTHING = SimpleNamespace(trace=lambda index: (np.zeros(0), np.zeros(0)))


@pytest.mark.parametrize("radius_px", [25.0, 45.0, 70.0])
def test_the_radius_is_told_with_what_it_rests_on(radius_px):
    (event,) = Watched(radius_px).events(Bubbles(masks()))
    assert (event.kind, event.particle_id) == (EventKind.BUBBLE, None)
    assert abs(event.magnitude - radius_px) < 3 * event.magnitude_sigma
    assert 0 < event.magnitude_sigma < 0.35 * radius_px
    assert "particles and their rings touched at" in event.detail and "fit no disc" not in event.detail
    assert event.t_s < 3.0 < 3.0 + event.t_s < event.detected_t_s


def test_larger_objects_are_told_larger():
    sizes = [Watched(radius_px).events(Bubbles(masks()))[0].magnitude for radius_px in (20, 35, 50, 80)]
    assert sizes == sorted(sizes) and sizes[-1] > 2 * sizes[0]


def test_one_particle_tells_no_radius():
    alone = np.array([[160.0, 150.0], [40.0, 300.0], [300.0, 300.0]])
    (event,) = Watched(30.0, alone).events(Bubbles(masks(alone)))
    assert np.isnan([event.magnitude, event.magnitude_sigma]).all()
    assert "only one particle" in event.detail


def test_when_all_are_touched_it_is_larger_than_can_be_told():
    close = np.array([[160.0, 200.0], [165.0, 215.0], [150.0, 210.0]])
    (event,) = Watched(70.0, close).events(Bubbles(masks(close)))
    assert np.isnan(event.magnitude) and "3 of 3 particles differ" in event.detail


def test_without_frames_before_it_nothing_is_told_of_its_size():
    bubbles = Bubbles(mask_set(2))
    bubbles.touch(touch(0, 1.0, facts(100)), NOTHING)
    (event,) = bubbles.finish(facts(200), NOTHING)
    assert np.isnan(event.magnitude) and "too few frames" in event.detail


def test_the_run_s_end_tells_what_still_passes_and_masks_may_grow_meanwhile():
    watched, bubbles = Watched(45.0), Bubbles(masks())
    assert watched.events(bubbles, 160) == []
    more = masks(np.vstack([PLACES, [[12.0, 12.0]]]))
    bubbles.change_masks(more)
    watched.contrast = np.column_stack([watched.contrast, np.full(len(watched.contrast), np.nan)])
    (event,) = watched.events(bubbles)
    assert abs(event.magnitude - 45.0) < 3 * event.magnitude_sigma
    other = Bubbles(more)
    assert watched.events(other, 170) == [] and len(other.finish(facts(169, 1 / RATE_HZ), watched)) == 1
    assert Bubbles(mask_set(0)).finish(facts(3), NOTHING) == []


def test_an_object_that_passes_is_said_once_while_it_passes():
    bubbles, told = Bubbles(mask_set(2)), []
    for frame in range(1400):
        if frame in (100, 150, 380, 900):
            bubbles.touch(touch(0, frame * 0.01 - 0.7, facts(frame)), NOTHING)
        told += bubbles.due(facts(frame), NOTHING)
    assert [event.t_s for event in told] == [pytest.approx(0.3), pytest.approx(8.3)]


def test_an_object_that_stays_is_told_while_it_does_and_only_once():
    bubbles, told = Bubbles(mask_set(2)), []
    for second in range(100):
        now = facts(10 * second, 0.1)
        if second < 80:
            bubbles.touch(touch(0, float(second), now), NOTHING)
        told += bubbles.due(now, NOTHING)
    assert len(told) == 1 and told[0].detected_t_s == pytest.approx(31.0)


def test_what_changes_beside_a_passing_object_begins_none():
    bubbles = Bubbles(mask_set(2))
    bubbles.touch(touch(0, 1.0, facts(100), passing=False), NOTHING)
    assert bubbles.finish(facts(200), NOTHING) == []


@pytest.mark.parametrize("lifted", [0.0, 0.05])
def test_particles_whose_touch_was_not_settled_count_and_a_common_lift_does_not(lifted):
    watched = Watched(45.0)
    watched.contrast += lifted * (watched.contrast.min(axis=1, keepdims=True) < 0.95)
    watched.onsets = dict(list(watched.onsets.items())[::3])
    (event,) = watched.events(Bubbles(masks()))
    assert abs(event.magnitude - 45.0) < 3 * event.magnitude_sigma and event.magnitude_sigma < 15.0


def test_half_of_all_particles_are_too_many_to_tell_by():
    some = np.array([[160.0, 200.0], [165.0, 225.0], [150.0, 175.0], [20.0, 30.0], [300.0, 30.0], [300.0, 380.0]])
    (event,) = Watched(50.0, some).events(Bubbles(masks(some)))
    assert np.isnan(event.magnitude) and "of 6 particles differ" in event.detail


def test_what_no_disc_explains_has_no_radius():
    watched = Watched(12.0)
    strewn = [5, 60, 130, 180]
    watched.contrast[:, strewn] = np.where(np.abs(watched.t_s - 3.0) < 0.3, 0.9, 1.0)[:, None]
    watched.onsets = dict.fromkeys(strewn, 135)
    (event,) = watched.events(Bubbles(masks()))
    assert np.isnan(event.magnitude) and "fit no disc" in event.detail
