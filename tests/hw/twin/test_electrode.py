import numpy as np
import pytest

from hw.twin.electrode import Electrode, rich_fraction
from hw.twin.sample import make_sample
from hw.twin.settings import SampleOptions
from kernels import electrode as k


def electrode(**options):
    return Electrode(make_sample(SampleOptions(**{"particles": 40, "cracks_per_h": 0.0} | options)))


@pytest.mark.parametrize("material", ["nmc", "lfp", "lco", "graphite"])
def test_coulombs_and_lithium_agree(material):
    """Charge passed = change of the particles' content, through charge, hold and rest."""
    one = electrode(material=material, initial_soc=0.3)
    passed_mah, start = 0.0, one.soc
    one.set_current(0.5)
    for _ in range(300):
        one.advance(1.0)
        passed_mah += one.current_ma / 3600
    one.set_voltage(one.voltage_v, 1.0)
    for _ in range(3000):
        one.advance(0.1)
        passed_mah += one.current_ma * 0.1 / 3600
    one.rest()
    one.advance(100.0)
    assert one.lost_mah == 0
    assert (one.soc - start) * 0.5 == pytest.approx(passed_mah, rel=2e-3)


def test_galvanostatic_current_is_exact():
    one = electrode()
    one.set_current(0.3)
    one.advance(10.0)
    rate = one.sample.weight @ one.state.c_rate
    assert one.current_ma == pytest.approx(0.3, rel=1e-9)
    assert -rate * one.full_mah * 3600 == pytest.approx(0.3, rel=1e-9)


def test_a_c_is_an_hour():
    one = electrode(capacity_mah=0.7, initial_soc=0.1)
    one.set_current(0.7)
    one.advance(1800.0)
    assert one.soc == pytest.approx(0.6, rel=1e-6)


def test_charging_takes_lithium_from_a_cathode_and_gives_it_to_an_anode():
    for material, sense in (("nmc", -1), ("graphite", 1)):
        one = electrode(material=material, initial_soc=0.4)
        before = one.sample.weight @ one.state.c
        one.set_current(0.5)
        one.advance(60.0)
        assert np.sign(one.sample.weight @ one.state.c - before) == sense
        assert one.soc > 0.4


def test_rest_takes_solid_solution_particles_to_one_potential():
    one = electrode(initial_soc=0.5, dead_fraction=0.1)
    one.set_current(1.5)
    one.advance(500.0)
    alive = ~one.sample.dead

    def spread():
        return np.ptp([one.sample.material.open_v(c) for c in one.state.c[alive]])

    apart = spread()
    one.rest()
    one.advance(7200.0)
    assert apart > 0.02 and spread() < 1e-3
    assert one.voltage_v == pytest.approx(one.sample.material.open_v(one.state.c[alive][0]), abs=1e-3)
    np.testing.assert_allclose(one.state.c_surface, one.state.c, atol=1e-4)


def test_nmc_spreads_on_charge_and_not_on_discharge():
    one = electrode(particles=150, initial_soc=0.02)
    spreads = []
    for sign in (1, -1):
        one.set_current(sign * 0.5)
        widest = 0.0
        while (one.soc < 0.85) if sign > 0 else (one.soc > 0.3):
            one.advance(30.0)
            widest = max(widest, one.state.c[~one.sample.dead].std())
            if sign < 0 and one.soc > 0.75:
                widest = 0.0
        spreads.append(widest)
    assert spreads[0] > 0.08 and spreads[1] < 0.04


@pytest.mark.parametrize("soc", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("material", ["nmc", "lfp"])
def test_it_starts_at_its_state_of_charge(material, soc):
    one = electrode(material=material, initial_soc=soc)
    assert one.soc == pytest.approx(soc, abs=1e-9)
    if material == "lfp":
        assert np.isin(one.state.c.round(3), [0.015, 0.985]).sum() >= one.sample.count - 1


@pytest.mark.parametrize("c_rate, low, high", [(0.1, 0.0, 0.06), (1.0, 0.1, 0.4), (5.0, 0.4, 0.7)])
def test_lfp_reacts_as_a_mosaic(c_rate, low, high):
    """The share of particles under way is small at low rate and grows with the rate."""
    one = electrode(particles=150, material="lfp", dead_fraction=0.0, initial_soc=0.25)
    one.set_current(c_rate * 0.5)
    under_way = []
    while one.soc < 0.6:
        one.advance(72 / c_rate)
        share = rich_fraction(one.sample, one.state.c)
        if one.soc > 0.4:
            under_way.append(np.mean((share > 0.05) & (share < 0.95)))
    assert low < np.mean(under_way) < high


def test_the_invading_phase_is_the_one_that_was_not_there():
    one = electrode(material="lfp", dead_fraction=0.0)
    one.set_current(2.0)
    one.advance(1200.0)
    assert one.soc > 0.9 and (one.state.invader == 0).mean() > 0.9  # empty: the rich one comes next


def test_voltage_looks_like_a_cell():
    one = electrode()
    one.set_current(0.25)
    volts = []
    while one.voltage_v < 4.25 and one.soc < 1.1:
        one.advance(60.0)
        volts.append(one.voltage_v)
    assert 3.6 < volts[0] < 4.0 and one.soc > 0.85
    one.set_current(-0.25)
    while one.voltage_v > 3.0 and one.soc > -0.2:
        one.advance(60.0)
    assert -0.1 < one.soc < 0.1


def test_a_hold_reaches_its_voltage_and_its_current_decays():
    one = electrode(initial_soc=0.4)
    one.set_voltage(4.1, 0.5)
    one.advance(1.0)
    assert one.current_ma == pytest.approx(0.5)
    one.advance(3000.0)
    first = one.current_ma
    assert one.voltage_v == pytest.approx(4.1, abs=1e-6) and first < 0.5
    one.advance(1200.0)
    assert 0 < one.current_ma < 0.5 * first


def test_a_current_no_particle_can_take_ends_at_the_compliance():
    one = electrode(initial_soc=0.9)
    one.set_current(2.0)
    one.advance(3600.0)
    assert one.voltage_v == pytest.approx(6.0) and one.current_ma < 0.1
    assert one.lost_mah == 0 and one.state.c.min() > 0


@pytest.mark.parametrize("limits", [(2.5, 3.95, 9.0), (2.5, 4.5, 0.4)])
def test_a_limit_opens_the_circuit(limits):
    one = electrode(initial_soc=0.4)
    one.set_limits(*limits)
    one.set_current(0.5)
    one.advance(1800.0)
    assert one.mode == k.OFF and one.current_ma == 0
    assert one.soc < 0.65


def test_rest_after_a_trip_reports_the_trip():
    one = electrode()
    one.set_limits(2.5, 4.5, 0.1)
    one.set_current(0.5)
    one.advance(0.5)
    assert one.tripped


def test_series_resistance_is_ohmic():
    volts = {}
    for ohm in (0.0, 100.0):
        one = electrode(series_resistance_ohm=ohm, initial_soc=0.5)
        one.set_current(0.5)
        one.advance(1.0)
        volts[ohm] = one.voltage_v
    assert volts[100.0] - volts[0.0] == pytest.approx(0.05, rel=1e-6)


def test_the_surface_leads_and_large_particles_lag():
    one = electrode(initial_soc=0.5)
    one.set_current(0.5)
    one.advance(600.0)
    inner = one.state.c - one.state.c_surface
    assert (inner[~one.sample.dead] > 0).all()
    assert np.corrcoef(inner[~one.sample.dead], one.sample.radius_px[~one.sample.dead] ** 2)[0, 1] > 0.9


def test_the_dead_do_nothing():
    one = electrode(dead_fraction=0.2)
    one.set_current(0.5)
    one.advance(900.0)
    assert (one.state.c[one.sample.dead] == one.sample.material.content(0.0)).all()


def cracked(**options):
    one = electrode(particles=100, cracks_per_h=20.0, initial_soc=0.1, **options)
    one.set_current(0.5)
    one.advance(1200.0)
    return one


def test_cracks_follow_their_script():
    one = cracked()
    cracks = [event for event in one.events if event.kind == "crack"]
    lost = [event for event in one.events if event.kind == "disconnected"]
    assert len(cracks) > 30 and 0.1 < len(lost) / len(cracks) < 0.5
    assert all(-0.25 <= event.magnitude <= -0.03 for event in cracks)
    gains = np.ones(100)
    for event in cracks:
        gains[event.particle] *= 1 + event.magnitude
    np.testing.assert_allclose(one.state.step_gain, gains)
    assert set(np.flatnonzero(one.state.crack_count)) == {event.particle for event in cracks}
    assert one.state.crack_count.max() <= 3 and np.isfinite(one.state.crack_t_s[one.state.crack_count > 0]).all()


def test_a_disconnected_particle_stands_still_and_charge_stays_conserved():
    one = cracked()
    gone = one.state.disconnected == 1
    before, soc = one.state.c[gone].copy(), one.soc
    one.advance(600.0)
    assert gone.any()
    np.testing.assert_array_equal(one.state.c[gone], before)
    assert one.soc - soc == pytest.approx(600 / 3600, rel=1e-6)


def test_some_lines_fade_when_lithium_comes_back():
    one = cracked()
    lines = (one.state.line > 0).sum()
    one.set_current(-0.3)
    one.sample.crack_threshold[:] = np.inf
    one.advance(1500.0)
    closed = [event for event in one.events if event.kind == "crack_closed"]
    assert 0 < len(closed) < 0.6 * lines
    assert all(one.state.line[event.particle] == 0 or one.state.crack_count[event.particle] > 1 for event in closed)


def test_cracks_can_be_switched_off():
    one = electrode(cracks_per_h=0.0)
    one.set_current(2.0)
    one.advance(900.0)
    assert one.events == []


def test_same_seed_same_life():
    first, second = cracked(), cracked()
    assert first.events == second.events
    np.testing.assert_array_equal(first.state.c, second.state.c)
