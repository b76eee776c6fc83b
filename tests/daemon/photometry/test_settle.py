from __future__ import annotations

import weakref

import numpy as np
import pytest

from daemon.engine.measures import Detection, FrameFlag, MaskSet
from daemon.events import Event, EventKind
from daemon.photometry.classify import FrameFacts
from daemon.photometry.fracture import Leftover
from daemon.photometry.lookback import Step
from daemon.photometry.settle import CRACK_CONTRAST, KEPT_ANATOMIES, KEPT_S, KEPT_SUSPECTS, Settled, Settling, is_crack
from tests.daemon.photometry.synthetic import Movie, run

FRAMES, P = 700, 30


def found(index: int, onset: int, size: float, common: float = 0.03, settled: int = 2) -> Detection:
    return Detection(index, onset, onset + settled, size, 1e-3, 30.0, common)


def events_of(contrast: np.ndarray, detections: list[Detection], every_s: float = 0.01, batch: int = 50, **about):
    movie = Movie(every_s * np.arange(len(contrast)), contrast, detections=detections, **about)
    return run(movie, [], batch).events


def still() -> np.ndarray:
    return np.zeros((FRAMES, P))


def told(settled_size: float, shapes: Leftover | None, sharp: bool = True, change: float = 0.1) -> Settled:
    return Settled(
        suspect=None, facts=None, step=Step(1.0, settled_size, 1e-3), passing=False, near_passing=False, apart=True,
        sharp=sharp, shapes=shapes, change=np.full(14, change),
    )  # type: ignore[arg-type]  # fmt: skip


def leftover(uniform: float, domain: float, crack: float) -> Leftover:
    return Leftover(uniform, domain, crack, (1.0, 0.0), 0.0)


@pytest.mark.parametrize(
    ("settled", "expected_sign", "crack"),
    [
        (told(CRACK_CONTRAST, None), 0, True),
        (told(-0.2, None), 1, True),
        (told(-0.2, None), -1, False),
        (told(-0.2, None, sharp=False), 0, False),
        (told(-0.02, None), 0, False),
        (told(0.2, None), 0, False),
        (told(-0.1, leftover(0.5, 0.2, 0.01)), -1, True),
        (told(-0.1, leftover(0.5, 0.2, 0.15)), 0, False),
        (told(-0.1, leftover(0.5, 0.01, 0.001)), 0, False),
        (told(-0.1, leftover(0.1, 0.01, 0.001)), 0, True),
        (told(-0.1, leftover(0.1, 0.01, 0.001), change=1e-3), 0, False),
    ],
)
def test_a_crack_is_sharp_dark_and_looks_like_one(settled, expected_sign, crack):
    assert is_crack(settled, expected_sign) == crack


def test_a_crack_is_typed_within_a_second_and_a_step_known_from_its_alarm():
    contrast = still()
    contrast[200:, 3] -= 0.1
    contrast[300:, 4] += 0.05
    crack, step = events_of(contrast, [found(3, 200, -0.1), found(4, 300, 0.05)])
    assert (crack.kind, crack.particle_id) == (EventKind.CRACK, 13)
    assert crack.t_s == pytest.approx(2.0) and 2.5 < crack.detected_t_s <= 3.0
    assert (step.kind, step.particle_id) == (EventKind.STEP, 14)
    assert (step.t_s, step.detected_t_s) == (pytest.approx(3.0), pytest.approx(3.02))
    assert crack.magnitude == pytest.approx(-0.1, abs=1e-3) and step.magnitude == pytest.approx(0.05, abs=1e-3)


def test_a_small_step_is_sized_by_long_means():
    contrast = still()
    contrast[300:, 7] += 2e-3
    (event,) = events_of(contrast, [found(7, 300, 2.9e-3, settled=20)])
    assert event.magnitude == pytest.approx(2e-3, abs=4 * event.magnitude_sigma)
    assert event.magnitude_sigma < 2e-4


def test_what_has_passed_by_then_is_no_event_of_the_particle():
    contrast = still()
    contrast[200:240, 3] -= 0.1
    (event,) = events_of(contrast, [found(3, 200, -0.1)])
    assert (event.kind, event.particle_id) == (EventKind.BUBBLE, None)


def test_an_object_that_passes_over_one_after_another_is_said_once():
    contrast = still()
    ramp = np.clip((np.arange(FRAMES) - 200) / 12, 0, 1)
    for index in range(4, 8):
        contrast[:, index] -= 0.1 * np.interp(np.arange(FRAMES) - 15 * (index - 4), np.arange(FRAMES), ramp)
    detections = [found(index, 206 + 15 * (index - 4), -0.1) for index in range(4, 8)]
    events = events_of(contrast, detections)
    assert [event.kind for event in events] == [EventKind.BUBBLE]


def test_a_crack_shows_through_a_focus_jump_only_by_its_parts():
    contrast, flags = still(), np.zeros(FRAMES, np.uint32)
    flags[200] = FrameFlag.FOCUS_JUMP
    contrast[205:, 3] -= 0.1
    events = events_of(contrast, [found(3, 205, -0.1)], flags=flags)
    assert [event.kind for event in events] == [EventKind.FOCUS_JUMP], "without parts it is the jump"


def test_between_slow_frames_it_is_settled_at_once():
    contrast = still()
    contrast[50:, 3] -= 0.1
    (event,) = events_of(contrast, [found(3, 50, -0.1)], every_s=10.0)
    assert (event.kind, event.detected_t_s) == (EventKind.CRACK, 520.0)


def test_what_still_waits_is_told_when_the_run_ends():
    contrast = still()
    contrast[680:, 3] -= 0.1
    (event,) = events_of(contrast, [found(3, 680, -0.1)])
    assert event.kind is EventKind.CRACK and event.detected_t_s == pytest.approx(6.99)


def test_batches_do_not_matter():
    contrast, detections = still(), []
    for index in range(12):
        contrast[100 + 40 * index :, index] += (-1) ** index * 0.01 * index
        detections.append(found(index, 100 + 40 * index, (-1) ** index * 0.01 * index))
    whole: list[Event] = events_of(contrast, detections, batch=700)
    assert repr(events_of(contrast, detections, batch=7)) == repr(whole) and len(whole) >= 10


def remembered(times: np.ndarray) -> list[float]:
    """Onsets that are kept of suspects raised at these times."""
    settling = Settling(MaskSet(np.zeros((8, 8), np.int32), np.arange(P), np.zeros(P), np.zeros(P), {}, 1.5, None))
    for k, t_s in enumerate(times.tolist()):
        facts = FrameFacts(k + 1, 0, t_s, t_s, 0.0, 0.0, 1.0, 1.0, 0)
        settling.add(Detection(k % P, k, k + 1, -0.1, 1e-3, 30.0, 0.0), t_s - 0.1, facts)
    return [suspect.onset_t_s for suspect in settling._recent]


def test_suspects_are_forgotten_when_none_can_stand_beside_them():
    times = 0.05 * np.arange(3000)
    kept = remembered(times)
    assert kept[0] == pytest.approx(times[-1] - KEPT_S, abs=0.2) and kept[-1] == times[-1] - 0.1


def test_of_a_slow_recording_some_are_kept_however_old():
    assert len(remembered(60.0 * np.arange(1000))) == KEPT_SUSPECTS


def test_shapes_are_kept_of_the_latest_suspects_only():
    labels = np.zeros((240, 240), np.int32)
    y, x = np.indices((40, 40)) - 20.0
    for k in range(36):
        top, left = 40 * (k // 6), 40 * (k % 6)
        labels[top : top + 40, left : left + 40][np.hypot(y, x) < 10.0] = k + 1
    place = np.arange(36) * 1.0
    masks = MaskSet(labels, np.arange(1, 37), place, place, {}, 1.5, None)
    settling = Settling(masks)
    shapes = [weakref.ref(settling.anatomy(index)) for index in range(masks.count)]
    assert sum(each() is not None for each in shapes) == KEPT_ANATOMIES < masks.count
    first = masks.count - KEPT_ANATOMIES
    assert settling.anatomy(first) is shapes[first]()
    settling.anatomy(0)  # takes the place of the one that was asked for longest ago
    assert shapes[first]() is not None and shapes[first + 1]() is None
