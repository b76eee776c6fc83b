from __future__ import annotations

import numpy as np
import pytest

from daemon.events import Event, EventKind
from daemon.photometry.activity import Activity
from daemon.photometry.standstill import Standstill
from tests.daemon.photometry.shapes_of_halves import make_curves, make_half, ramp
from tests.daemon.photometry.synthetic import CAPACITY_MAH, Movie, Step, cell_rows, charge_at, run

P, POINTS, HOUR_S = 12, 200, 3600.0
STOPS, DEAD, FOLDED, FILM = 3, 4, 5, 6
RATIO = np.full((20, 4), 2.0)
GONE, BACK = EventKind.DISCONNECTED, EventKind.RECONNECTED


class Cell:
    """Halves of a cell, an hour each, whose particles all swing by 20 % unless told otherwise."""

    def __init__(self, sigma: float = 1e-3) -> None:
        self.activity, self.still = Activity(P), Standstill(np.arange(10, 10 + P))
        self.level = np.zeros(P)
        self.events: list[Event] = []
        self.count, self.sigma = 0, sigma
        self.cracks: dict[int, float] = {}
        self.out = np.zeros(P, bool)

    def half(self, gain: dict[int, float] | None = None, share: float = 1.0, own: dict | None = None, hours: float = 1):
        """One half in which particles move by these shares of their way, or do as `own` (POINTS,) says."""
        sign = 1 - 2 * (self.count % 2)
        size = np.full(P, 0.2 * share)
        for index, each in (gain or {}).items():
            size[index] *= each
        contrast = self.level + sign * size * ramp(POINTS, 0.0, 1.0)[:, None]
        for index, values in (own or {}).items():
            contrast[:, index] = values
        start_s, end_s = HOUR_S * self.count, HOUR_S * (self.count + hours)
        half = make_half(self.count, sign, start_s, end_s, current_ma=share / hours)
        curves = make_curves(half, contrast, self.sigma, seed=self.count)
        swings = self.activity.add(curves, RATIO[:P])
        if swings is not None:
            self.events += self.still.add(swings, curves, self.out, self.cracks, end_s)
        self.level, self.count = contrast[-1], self.count + 1
        return self

    def told(self) -> list[tuple[EventKind, int | None, float]]:
        return [(event.kind, event.particle_id, event.detected_t_s) for event in self.events]


def lived(halves: int = 2, **about) -> Cell:
    cell = Cell(**about)
    for _ in range(halves):
        cell.half()
    return cell


def test_a_particle_that_stops_is_told_once_in_the_half_that_shows_it():
    cell = lived()
    for _ in range(4):
        cell.half({STOPS: 0.0})
    assert cell.told() == [(GONE, 10 + STOPS, 3 * HOUR_S)]
    (event,) = cell.events
    assert event.detail.startswith("no crack seen: swung by 18 %") and "while 11 of 11 others went on" in event.detail
    assert 2 * HOUR_S < event.t_s < 3 * HOUR_S, "when the others had moved"
    assert event.magnitude == pytest.approx(-0.18, abs=0.01) and 0 < event.magnitude_sigma < 1e-3


def test_it_is_told_when_it_comes_back_and_when_it_stops_again():
    cell = lived()
    for gain in (0.0, 0.0, 1.0, 1.0, 1.0, 0.0):
        cell.half({STOPS: gain})
    assert [kind for kind, *_ in cell.told()] == [GONE, BACK, GONE]
    assert [when / HOUR_S for *_, when in cell.told()] == [3, 5, 8]
    assert cell.events[1].magnitude == pytest.approx(0.18, abs=0.01) and "again" in cell.events[1].detail


def test_one_that_stops_within_a_half_shows_it_in_the_next():
    for when in (0.05, 0.2, 0.6):
        cell = lived()
        cell.half(own={STOPS: 0.2 * np.minimum(ramp(POINTS, 0.0, 1.0), when)})
        cell.half({STOPS: 0.0}).half({STOPS: 0.0})
        assert [kind for kind, *_ in cell.told()] == [GONE], when
        assert cell.events[0].detected_t_s >= 3 * HOUR_S


def test_dead_folded_and_growing_ones_are_not_told():
    cell, film = Cell(), 0.1 * np.sqrt(np.arange(8 * POINTS + 1) / POINTS)
    bent = 0.1 * np.sin(np.pi * ramp(POINTS, 0.0, 1.0))
    for k in range(8):
        own = {FOLDED: bent, FILM: film[k * POINTS : (k + 1) * POINTS] if k < 3 else np.full(POINTS, film[3 * POINTS])}
        cell.half({DEAD: 0.0}, own=own)
    assert cell.told() == []


def test_a_half_of_little_charge_says_nothing_and_the_next_whole_one_does():
    cell = lived()
    cell.half({STOPS: 0.0}, share=0.5).half({STOPS: 0.0}, share=0.5)
    assert cell.told() == []
    assert cell.half({STOPS: 0.0}).told() == [(GONE, 10 + STOPS, 5 * HOUR_S)]


def test_a_folded_one_over_its_turn_in_a_short_half_is_not_told():
    cell, top = Cell(), np.full(POINTS, 0.1)
    for _ in range(3):
        cell.half(own={FOLDED: 0.1 * np.sin(np.pi * ramp(POINTS, 0.0, 1.0))})
    cell.half(own={FOLDED: top}, share=0.4).half(own={FOLDED: top}, share=0.4)
    assert cell.told() == []


def test_what_a_faster_half_leaves_out_is_not_told():
    assert lived().half({STOPS: 0.0}, hours=0.5).told() == []
    assert lived().half({STOPS: 0.0}, hours=0.9).told() != []


def test_fading_into_noise_is_no_stop():
    cell = Cell()
    for k in range(24):
        cell.half({STOPS: 0.8**k})
    assert cell.told() == []


def test_when_most_stop_it_is_not_the_particles():
    cell = lived()
    cell.half(dict.fromkeys(range(8), 0.0))
    assert cell.told() == []
    cell.half({STOPS: 0.0})
    assert [who for _, who, _ in cell.told()] == [10 + STOPS], "who is still so when the others go on"


def test_noise_that_grows_hides_a_particle_and_tells_nothing():
    cell = lived()
    cell.sigma = 0.05
    cell.half({STOPS: 0.1})
    assert cell.told() == []


def test_a_half_with_edited_masks_says_nothing_and_new_particles_join():
    cell = lived()
    cell.still.grow(np.arange(10, 10 + P))
    cell.half({STOPS: 0.0})
    assert cell.told() == []
    cell.half({STOPS: 0.0})
    assert cell.told() == [(GONE, 10 + STOPS, 4 * HOUR_S)]


def test_cracked_parted_and_lost_ones():
    cell = lived()
    cell.cracks = {STOPS: 512.0}
    cell.out[8] = True
    cell.half({STOPS: 0.0, 8: 0.0})
    assert [who for _, who, _ in cell.told()] == [10 + STOPS]
    assert cell.events[0].detail.startswith("all of it, cracked at 512.0 s: swung")


def science_run(gains: list[float], steps: list[Step], stop: int = STOPS):
    """Particle `stop` follows by one gain a half; DEAD is dead, FOLDED folded; contrasts through the whole science."""
    rows = cell_rows([Step(60, 0), *steps])
    t_s = np.arange(0.0, rows[-1].t_s, 12.0)
    x = np.clip(charge_at(rows)(t_s) / CAPACITY_MAH, 0, 1)
    contrast = np.repeat(0.15 * x[:, None], 20, axis=1) * (1.0 + 0.02 * np.arange(20))
    contrast[:, DEAD], contrast[:, FOLDED] = 0.0, 0.2 * np.sin(1.2 * np.pi * x)
    place = np.searchsorted(60.0 + np.cumsum([step.duration_s for step in steps]), t_s)
    gain = np.array([*gains, gains[-1]])[place]
    contrast[1:, stop] = np.cumsum(gain[1:] * np.diff(contrast[:, stop]))
    return run(Movie(t_s, contrast), rows)


def test_a_run_tells_it_among_its_events():
    steps = [Step(HOUR_S, sign) for sign in (1, -1, 1, -1, 1, -1)]
    result = science_run([1, 1, 0, 0, 1, 1], steps)
    told = [(event.kind, event.particle_id) for event in result.events if event.kind in (GONE, BACK)]
    assert told == [(GONE, 10 + STOPS), (BACK, 10 + STOPS)]
    assert result.particles[10 + STOPS]["state"] == "active" and result.particles[10 + DEAD]["state"] == "dead"


def test_a_run_whose_halves_pass_little_tells_nothing():
    steps = [Step(HOUR_S, 1), Step(HOUR_S, -1), *[Step(HOUR_S / 3, sign) for sign in (1, -1, 1, -1)]]
    result = science_run([1, 1, 0, 0, 0, 0], steps)
    assert not [event for event in result.events if event.kind in (GONE, BACK)]
