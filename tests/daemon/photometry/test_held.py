from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from daemon.events import EventKind
from daemon.photometry.events import EventReader
from daemon.photometry.fracture import Anatomy
from daemon.photometry.held import HeldCracks, Scar, scar
from daemon.photometry.lookback import Step
from daemon.photometry.settle import Settled
from tests.daemon.photometry.synthetic import mask_set
from tests.daemon.photometry.test_fracture import DISC, PSF, Y, change_to, cracked, features

LIGHT_E = 100.0
WHOLE = DISC.astype(float)
ONSET_S, RATE_HZ = 20.0, 10.0


class Film:
    """A lookback of one particle whose pictures over time are known."""

    def __init__(self, body: Anatomy, shown) -> None:
        self._radius_px, self._shown, self.t_s = body.radius_px, shown, ONSET_S

    def _parts(self, t_s: float) -> np.ndarray:
        found = LIGHT_E * features(self._shown(t_s))
        found[-2:] *= self._radius_px
        return found

    def before(self, index: int, onset_t_s: float) -> np.ndarray:
        return self._parts(onset_t_s - 0.5)

    def early(self, index: int, onset_t_s: float) -> np.ndarray:
        return self._parts(onset_t_s - 5.0)

    def newest(self, index: int, frames: int) -> np.ndarray:
        return self._parts(self.t_s)

    def going_on(self, index: int, onset_t_s: float, frames: int, radius_px: float) -> tuple[np.ndarray, float]:
        return np.zeros((2, 14)), float("nan")


@pytest.fixture(scope="module")
def body() -> Anatomy:
    return Anatomy(DISC, PSF)


def facts(t_s: float) -> SimpleNamespace:
    return SimpleNamespace(t_s=t_s, frame=round(t_s * RATE_HZ))


def told(body: Anatomy, shown, until_s: float = 34.0) -> tuple[list[float], list[float]]:
    """When a change seen at `ONSET_S`, of what the picture was just before, is told as a crack, and when dropped."""
    film, held = Film(body, shown), HeldCracks()
    seen = change_to(shown(ONSET_S + 0.5)) - change_to(shown(ONSET_S - 0.5))
    suspect = SimpleNamespace(detection=SimpleNamespace(index=0, onset_frame=round(ONSET_S * RATE_HZ)))
    crack = Settled(suspect, facts(ONSET_S + 1.4), Step(ONSET_S, -0.1, 1e-3), False, True, True, True, None, seen)
    held.add(scar(crack, body, film))
    stayed, gone = [], []
    for t_s in np.arange(ONSET_S + 1.5, until_s, 1 / RATE_HZ):
        film.t_s = float(t_s)
        cracks, others = held.due(facts(film.t_s), film)
        stayed += [each.crack.facts.t_s for each in cracks]
        gone += [film.t_s for _ in others]
    return stayed, gone


def rim(t_s: float) -> np.ndarray:
    """An object that has reached the particle's middle at the onset and moves on at 60 px/s for four seconds."""
    edge = 60.0 * (t_s - ONSET_S - 0.05)
    if not -60.0 < edge < 240.0:
        return WHOLE
    return WHOLE * (1.0 - 0.1 * (edge > Y) * (edge - 200.0 < Y) - 0.25 * (np.abs(Y - edge) < 1.5))


def test_a_crack_that_stays_is_told_within_three_seconds_of_its_onset(body):
    crack = cracked(0.6, 2.0)
    stayed, gone = told(body, lambda t_s: crack if t_s >= ONSET_S else WHOLE)
    assert len(stayed) == 1 and ONSET_S + 2.0 <= stayed[0] <= ONSET_S + 3.0 and not gone


def test_brightness_of_all_of_it_does_not_matter_meanwhile(body):
    crack = cracked(1.6, -3.0)
    stayed, _ = told(body, lambda t_s: (crack if t_s >= ONSET_S else WHOLE) * (1.0 + 0.004 * (t_s - ONSET_S)))
    assert len(stayed) == 1


def test_a_rim_that_stood_over_it_just_before_is_none(body):
    seen = change_to(rim(ONSET_S + 0.5)) - change_to(rim(ONSET_S - 0.5))
    assert body.uneven(seen) < 1e-3, "it covers all by then"
    stayed, gone = told(body, lambda t_s: rim(t_s + 0.5) if t_s < ONSET_S else rim(t_s))
    assert not stayed and len(gone) == 1 and gone[0] > ONSET_S + 10.0


def test_one_look_alike_is_not_enough_and_a_crack_shows_once_the_object_has_passed(body):
    crack = cracked(0.6, 2.0)
    stayed, gone = told(body, lambda t_s: crack if ONSET_S <= t_s < ONSET_S + 2.3 else WHOLE)
    assert not stayed and len(gone) == 1
    stayed, gone = told(body, lambda t_s: WHOLE if t_s < ONSET_S else rim(t_s - 3.0) * crack)
    assert len(stayed) == 1 and not gone


def test_what_is_held_when_the_run_ends_is_told_if_it_looks_as_it_did(body):
    crack, held = cracked(0.6, 2.0), HeldCracks()
    suspect = SimpleNamespace(detection=SimpleNamespace(index=0, onset_frame=200))
    one = Settled(suspect, facts(21.4), Step(20.0, -0.1, 1e-3), False, True, True, True, None, change_to(crack))
    film = Film(body, lambda t_s: crack if t_s >= ONSET_S else WHOLE)
    for shown in (ONSET_S, ONSET_S - 1.0):
        film.t_s = shown
        held.add(scar(one, body, film))
        told_now = held.flush(facts(21.5), film)
        assert [each.crack.facts.t_s for each in told_now] == ([21.5] if shown == ONSET_S else [])
    assert held.flush(facts(22.0), film) == []


def test_between_slow_frames_a_crack_is_held_for_as_many_frames(body):
    crack, held = cracked(0.6, 2.0), HeldCracks()
    suspect = SimpleNamespace(detection=SimpleNamespace(index=0, onset_frame=2))
    slow = [SimpleNamespace(t_s=10.0 * frame, frame=frame) for frame in range(40)]
    film = Film(body, lambda t_s: crack if t_s >= ONSET_S else WHOLE)
    one = Settled(suspect, slow[4], Step(20.0, -0.1, 1e-3), False, True, True, True, None, change_to(crack))
    held.add(scar(one, body, film))
    film.t_s = 1000.0
    assert [k for k, now in enumerate(slow) if held.due(now, film)[0]] == [17]


def test_without_an_outline_there_is_nothing_to_hold_it_against(body):
    nothing = Scar(None, None, np.full(14, np.nan), np.full(14, np.nan), 0.0)
    assert nothing.stays(Film(body, lambda t_s: WHOLE))


def test_only_a_crack_beside_an_object_is_held(body):
    reader, crack = EventReader(mask_set(30), 5.0), cracked(0.6, 2.0)
    film = Film(body, lambda t_s: crack if t_s >= ONSET_S else WHOLE)
    reader._settling = SimpleNamespace(lookback=film, anatomy=lambda index: body)
    seen = change_to(crack)
    detection = SimpleNamespace(index=0, onset_frame=200, score=9.0, common_fraction=0.03)
    suspect = SimpleNamespace(detection=detection, onset_t_s=ONSET_S, facts=facts(20.2))

    def settled(near: bool) -> Settled:
        step = Step(ONSET_S, -0.1, 1e-3)
        now = SimpleNamespace(t_s=21.4, frame=214, host_t_s=0.0)
        return Settled(suspect, now, step, False, near, True, True, body.explain(seen), seen)

    (alone,) = reader._told([settled(near=False)])
    assert (alone.kind, alone.detected_t_s, alone.particle_id) == (EventKind.CRACK, 21.4, 10)
    assert reader._told([settled(near=True)]) == []
    told_at = [
        event.detected_t_s
        for frame in range(215, 300)
        for event in reader._stayed(SimpleNamespace(t_s=frame / RATE_HZ, frame=frame, host_t_s=0.0))
    ]
    assert told_at == [22.5] and reader.cracks_t_s == {0: ONSET_S}
