"""The independent electrode is what it says: charge adds up, rests relax, gradients point the right way."""

from __future__ import annotations

import numpy as np
import pytest

from tests.electrode import (
    CAPACITY_MAH,
    FLAT_V,
    SHELLS,
    Leg,
    Optics,
    SolidSolution,
    Spheres,
    TwoPhase,
    cycled,
    diffused,
    drive,
    exchange,
    ocv,
    open_circuit_v,
)  # fmt: skip

CYCLE = (Leg(1, 1.1, 20, 4.25), Leg(0, 1.0, 60), Leg(-1, 0.5, 20), Leg(0, 1.0, 60))


@pytest.fixture(scope="module")
def solid():
    electrode = SolidSolution(40, 7, dead_share=0.1)
    return electrode, drive(electrode, CYCLE)


def test_charge_adds_up_and_dead_particles_take_none(solid):
    electrode, history = solid
    assert electrode.dead.any()
    np.testing.assert_allclose(history.soc @ electrode.weight, history.charge, atol=1e-6)
    assert np.ptp(history.soc[:, electrode.dead]) == 0.0


def test_rests_bring_all_particles_together_and_current_apart(solid):
    electrode, history = solid
    spread = history.soc[:, ~electrode.dead].std(axis=1)
    ends = np.flatnonzero(np.diff(history.current_c) != 0)
    begin, charged, rested = ends[:3]
    assert spread[rested] < 1e-4 < 1e-3 < spread[(begin + charged) // 2]
    assert history.voltage_v[rested] == pytest.approx(ocv(history.charge[rested])[0], abs=1e-3)


def test_the_surface_leads_by_what_even_flux_demands(solid):
    electrode, history = solid
    charging = history.current_c > 0
    assert (history.gradient[charging][20:][:, ~electrode.dead] > 0).all()
    # steady state of a sphere: c = a + j r^2 / 6 D; outer quarter of the volume minus inner
    middle = int(np.flatnonzero(charging)[len(np.flatnonzero(charging)) // 2])
    profile = history.shells[middle, ~electrode.dead]
    rate = (history.soc[middle + 1] - history.soc[middle - 1])[~electrode.dead] / (40.0 / 3600.0)
    expected = rate * electrode.diffusion[~electrode.dead] / 6.0 * (0.9143 - 0.2381)
    np.testing.assert_allclose(profile[:, :4].mean(axis=1) - profile[:, -4:].mean(axis=1), expected, rtol=0.12)


def test_two_phases_take_turns_under_a_flat_voltage_and_boundaries_are_sharp():
    electrode = TwoPhase(60, 7)
    history = drive(electrode, (Leg(0.5, 1.0, 60), Leg(0, 0.3, 60)))
    live = ~electrode.dead
    np.testing.assert_allclose((history.soc - history.soc[0]) @ electrode.weight, history.charge, atol=3e-3)
    last = history.soc[-1, live]
    assert ((last < 0.08) | (last > 0.92)).mean() > 0.8
    assert abs(history.voltage_v[len(history.t_s) // 2] - FLAT_V) < 0.05
    between = (history.shells[:, live] > 0.05) & (history.shells[:, live] < 0.95)
    assert between.sum(axis=2).max() <= 1


def test_responses_differ_and_fold_as_they_say():
    optics = Optics(200, 3)
    share = optics.turn_share()
    assert (share[~optics.folded] == 0).all()
    assert share[optics.folded].min() > 0.02
    assert len(np.unique(np.round(optics.size, 3))) > 150


def test_layers_are_the_light_of_their_shells():
    optics, dead = Optics(10, 3, unevenness=0.2), np.arange(10) == 4
    shells = np.random.default_rng(1).uniform(0, 1, (3, 10, SHELLS))
    light = optics.shells(shells, dead)
    np.testing.assert_allclose(optics.layers(shells, dead).sum(axis=2), light.mean(axis=2))
    assert np.ptp(light[:, 4].mean(axis=1)) < 1e-12
    np.testing.assert_allclose(optics.shells(np.zeros((1, 10, SHELLS)), dead).mean(axis=2), 1.0)


@pytest.fixture(scope="module")
def spheres():
    some = Spheres(np.array([2.0, 5.0, 9.0]), np.array([900.0, 500.0, 1200.0]), series_ohm=20.0)
    return cycled(some, ((0.5, 1.2), (0.0, 1.5), (-0.5, 0.8)), steps=60)


def test_spheres_share_the_charge_and_their_surfaces_lead(spheres):
    passed = np.cumsum(spheres.current_ma * np.diff(spheres.t_s, prepend=0.0)) / 3600.0 / CAPACITY_MAH
    np.testing.assert_allclose(spheres.soc.mean(axis=1), 0.02 + passed, atol=1e-6)
    assert (spheres.gradient[5:60] > 0).all() and (spheres.gradient[125:] < 0).all()


def test_spheres_at_rest_come_to_the_open_voltage_and_current_drops_over_the_resistance(spheres):
    assert np.ptp(spheres.soc[119]) < 2e-3 < np.ptp(spheres.soc[59])
    assert spheres.voltage_v[119] == pytest.approx(open_circuit_v(spheres.soc[119].mean()), abs=1e-3)
    # ten milliseconds after the current ended, before anything has diffused
    assert spheres.voltage_v[59] - spheres.voltage_v[60] > 0.02 * 0.5 * CAPACITY_MAH


def test_diffusion_between_shells_loses_nothing_and_evens_out():
    volume = np.array([0.5, 0.3, 0.2])
    flow = exchange(np.array([0.4, 0.7]), volume)
    np.testing.assert_allclose(volume @ flow, 0.0, atol=1e-15)
    start = np.array([1.0, 0.0, 0.0])
    late, soon = diffused(flow, np.array([1e6, 0.1]))
    np.testing.assert_allclose(late @ start, 0.5, atol=1e-5)
    assert volume @ soon @ start == pytest.approx(0.5) and (np.diff(soon @ start) < 0).all()
