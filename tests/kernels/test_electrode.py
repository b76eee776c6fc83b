import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import electrode as k
from tests.kernels import naive_electrode as naive

TABLE = np.linspace(4.3, 3.0, 65) - 0.2 * np.sin(np.linspace(0, 3, 65))
ACTIVITY = 2 * np.sqrt(np.linspace(0, 1, 65) * np.linspace(1, 0, 65))
ENTROPY = 0.3


def electrode(count=7, seed=3):
    rng = np.random.default_rng(seed)
    c = rng.uniform(0.05, 0.95, count)
    k_hz = rng.uniform(1e-4, 1e-2, count)
    k_hz[0] = 0.0  # one is dead
    weight = rng.uniform(0.1, 1, count) * (k_hz > 0)
    return c, k_hz, weight / weight.sum(), rng.uniform(0, 50, count), rng.uniform(0, 1, count)


def exchanged(c, k_hz, resistance_s, boost, reference_v=3.7):
    factor, kappa, stiff = np.empty((3, len(c)))
    top = k.exchange(c, k_hz, boost, resistance_s, TABLE, ACTIVITY, ENTROPY, reference_v, factor, kappa, stiff)
    return factor, kappa, stiff, top


@pytest.mark.parametrize("c", [0.0, 1.0, 0.5, 1e-9, 1 - 1e-9, 0.123, -3.0, 7.0])
def test_table_and_potential_equal_the_naive_ones(c):
    assert k.table_at(TABLE, c) == pytest.approx(naive.naive_table_at(TABLE, c), abs=1e-12)
    assert k.equilibrium_v(c, TABLE, ENTROPY) == pytest.approx(naive.naive_equilibrium_v(c, TABLE, ENTROPY), abs=1e-9)


@pytest.mark.parametrize("c", [0.003, 0.2, 0.61, 0.97])
def test_slope_is_the_derivative_within_a_table_step(c):
    step = 1e-6
    rise = k.equilibrium_v(c + step, TABLE, ENTROPY) - k.equilibrium_v(c - step, TABLE, ENTROPY)
    assert k.equilibrium_slope(c, TABLE, ENTROPY) == pytest.approx(rise / (2 * step), rel=1e-4)


def test_exchange_equals_the_naive_one():
    c, k_hz, _, resistance_s, boost = electrode()
    factor, kappa, stiff, top = exchanged(c, k_hz, resistance_s, boost)
    want = naive.naive_exchange(c, k_hz, boost, resistance_s, TABLE, ACTIVITY, ENTROPY, 3.7)
    np.testing.assert_allclose(factor, want[0], rtol=1e-10)
    np.testing.assert_allclose(kappa, want[1], rtol=1e-10)
    assert top == stiff.max() > 0 and stiff[0] == 0


def test_stiffness_is_the_rate_at_which_a_particle_relaxes():
    c, k_hz, _, resistance_s, boost = electrode()
    volts, step, i = 3.7, 1e-6, 3
    _, kappa, stiff, _ = exchanged(c, k_hz, resistance_s, boost, volts)
    ahead, behind = (
        naive.naive_rates(volts, naive.naive_equilibrium_v(c[i] + d, TABLE, ENTROPY), kappa[i]) for d in (step, -step)
    )
    assert stiff[i] == pytest.approx(-(ahead - behind) / (2 * step), rel=1e-3)


def test_damping_bounds_every_step_and_leaves_the_slow_alone():
    kappa, stiff = np.array([1.0, 1.0, 1.0]), np.array([0.0, 0.3, 100.0])
    k.damp(kappa, stiff, 1.0)
    np.testing.assert_allclose(kappa, [1.0, 1.0, k.MAX_STIFFNESS / 100])


@given(rate=st.floats(-1e3, 1e3), forward=st.floats(1e-9, 1e6), backward=st.floats(1e-9, 1e6))
def test_closure_gives_exactly_the_rate(rate, forward, backward):
    x = k.closure(rate, forward, backward)
    taken = forward * math.exp(x) - backward * math.exp(-x)
    assert taken == pytest.approx(rate, rel=1e-9, abs=1e-9 * math.sqrt(forward * backward))


@pytest.mark.parametrize("forward, backward", [(0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (math.nan, 1.0), (1.0, math.nan)])
def test_closure_without_a_connected_particle_is_not_a_number(forward, backward):
    assert math.isnan(k.closure(0.1, forward, backward))


def test_closure_and_butler_volmer_agree():
    """The potential found by the closed form, put into Butler-Volmer particle by particle, gives the current."""
    c, k_hz, weight, resistance_s, boost = electrode(50)
    factor, kappa, _, _ = exchanged(c, k_hz, resistance_s, boost)
    forward, backward = k.conductances(weight, factor, kappa)
    for rate in (-3e-3, 0.0, 1e-6, 2e-2):
        x = k.closure(rate, forward, backward)
        _, volts, _ = k.terminal(x, 3.7, 0.0, forward, backward)
        equilibrium = [naive.naive_equilibrium_v(one, TABLE, ENTROPY) for one in c]
        assert weight @ naive.naive_rates(volts, equilibrium, kappa) == pytest.approx(rate, rel=1e-9, abs=1e-11)


@settings(max_examples=200)
@given(terminal_v=st.floats(0, 6), ohm_s=st.floats(0, 1e4), forward=st.floats(1e-9, 10), backward=st.floats(1e-9, 10))
def test_hold_puts_the_terminal_where_it_should_be(terminal_v, ohm_s, forward, backward):
    x = k.hold(terminal_v, 3.7, ohm_s, forward, backward)
    rate, open_v, volts = k.terminal(x, 3.7, ohm_s, forward, backward)
    assert open_v - ohm_s * rate == pytest.approx(volts, abs=1e-9)
    assert volts == pytest.approx(terminal_v, abs=1e-6)


def drive(mode, value=0.0, bound=np.inf, comply=(-9.0, 9.0), limits=(-9.0, 9.0), limit_rate=np.inf):
    return np.array([mode, value, bound, *limits, limit_rate, *comply], float)


def test_drive_obeys_mode_current_bound_and_compliance():
    forward, backward, ohm_s = 0.02, 0.03, 5.0

    def driven(*args, **kwargs):
        x = k.drive_cell(drive(*args, **kwargs), 3.7, ohm_s, forward, backward)
        return k.terminal(x, 3.7, ohm_s, forward, backward)

    assert driven(k.OFF, 5.0)[0] == pytest.approx(0, abs=1e-15)
    assert driven(k.GALVANOSTATIC, 0.01)[0] == pytest.approx(0.01)
    assert driven(k.POTENTIOSTATIC, 3.6)[2] == pytest.approx(3.6)
    assert driven(k.POTENTIOSTATIC, 2.0, bound=0.1)[0] == pytest.approx(0.1)
    assert driven(k.POTENTIOSTATIC, 5.0, bound=0.1)[0] == pytest.approx(-0.1)
    rate, _, volts = driven(k.GALVANOSTATIC, 100.0, comply=(3.0, 5.0))
    assert volts == pytest.approx(3.0) and 0 < rate < 100


def test_lithium_moves_as_the_naive_one_does():
    c, k_hz, weight, resistance_s, boost = electrode(20)
    factor, kappa, stiff, _ = exchanged(c, k_hz, resistance_s, boost)
    c[1], c[2] = 1 - 2e-6, 2e-6  # about to be clipped
    kappa[1:3] = 1.0
    diffusion_s = np.where(np.arange(20) % 2, 300.0, 0.0)
    q, c_surface = np.random.default_rng(0).normal([[0.0], [0.5]], 0.01, (2, 20))
    want = naive.naive_move_lithium(0.7, 0.1, weight, factor, kappa, stiff, diffusion_s, c, q, c_surface)
    c_rate = np.empty(20)
    lost = k.move_lithium(0.7, 0.1, weight, factor, kappa, stiff, diffusion_s, c, q, c_surface, c_rate)
    for got, wanted in zip((c, q, c_surface, c_rate), want[:4], strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-13)
    assert lost == pytest.approx(want[4], rel=1e-9) and lost != 0


@pytest.mark.parametrize("two_phase", [False, True])
def test_wear_equals_the_naive_one(two_phase):
    rng = np.random.default_rng(1)
    c, c_surface, hazard_hz, boost, hazard = rng.uniform(0, 1, (5, 9))
    c_rate = rng.normal(size=9)
    want = naive.naive_wear(3.0, c, c_surface, c_rate, two_phase, hazard_hz, boost, hazard)
    k.wear(3.0, c, c_surface, c_rate, two_phase, hazard_hz, boost, hazard)
    np.testing.assert_allclose(boost, want[0], rtol=1e-12)
    np.testing.assert_allclose(hazard, want[1], rtol=1e-12)


def test_front_remembers_which_phase_came_last():
    c, invader = np.array([0.05, 0.95, 0.5, 0.5, np.nan]), np.array([1.0, 0.0, 1.0, 0.0, 1.0])
    want = naive.naive_track_front(c, 0.1, 0.9, invader)
    k.track_front(c, 0.1, 0.9, invader)
    np.testing.assert_array_equal(invader, want)
    np.testing.assert_array_equal(invader, [0, 1, 1, 0, 1])


class Cell:
    """Arguments of `advance` by name."""

    def __init__(self, count=40, seed=5):
        self.c, self.k_hz, self.weight, self.resistance_s, _ = electrode(count, seed)
        self.q, self.c_rate, self.boost, self.hazard = np.zeros((4, count))
        self.c_surface = self.c.copy()
        self.scratch = np.empty((3, count))
        self.cell = np.zeros(6)
        self.cell[k.CELL_OPEN_V] = 3.7
        self.drive = drive(k.OFF)

    def advance(self, duration_s, ohm_s=0.0, diffusion_s=0.0):
        spread = np.full(len(self.c), diffusion_s)
        return k.advance(
            duration_s, 1.0, self.drive, ohm_s, TABLE, ACTIVITY, ENTROPY, False, self.weight, self.k_hz,
            self.resistance_s, spread, spread * 0, self.c, self.q, self.c_surface, self.c_rate, self.boost, self.hazard,
            *self.scratch, self.cell,
        )  # fmt: skip


@pytest.mark.parametrize("rate", [1e-4, -1e-4])
def test_charge_is_conserved_under_current(rate):
    cell = Cell()
    cell.c[:] = cell.c_surface[:] = 0.5
    cell.drive = drive(k.GALVANOSTATIC, rate)
    assert cell.advance(300.0, diffusion_s=200.0) == pytest.approx(300.0)
    assert cell.weight @ (cell.c - 0.5) == pytest.approx(300 * rate, rel=1e-9)
    assert cell.cell[k.CELL_LOST] == 0


def test_rest_conserves_charge_and_levels_potentials():
    cell = Cell()
    before = cell.weight @ cell.c
    cell.advance(200_000.0)
    assert cell.weight @ cell.c == pytest.approx(before, rel=1e-9)
    volts = [naive.naive_equilibrium_v(c, TABLE, ENTROPY) for c in cell.c[cell.k_hz > 0]]
    assert np.ptp(volts) < 1e-3


def test_dead_particles_keep_their_lithium():
    cell = Cell()
    dead = cell.c[0]
    cell.drive = drive(k.GALVANOSTATIC, -1e-5)
    cell.advance(100.0)
    assert cell.c[0] == dead and cell.c_rate[0] == 0


def test_a_limit_opens_the_circuit_before_the_charge_passes():
    cell = Cell()
    cell.c[:] = cell.c_surface[:] = 0.5
    cell.drive = drive(k.GALVANOSTATIC, -1e-3, limits=(2.0, 3.9))
    passed = cell.advance(1000.0)
    assert passed < 1000 and cell.cell[k.CELL_TRIPPED] == 1 and cell.drive[k.DRIVE_MODE] == k.OFF
    assert cell.weight @ cell.c == pytest.approx(0.5 - 1e-3 * passed, rel=1e-9)


def test_a_current_limit_trips_at_once():
    cell = Cell()
    cell.drive = drive(k.GALVANOSTATIC, 1e-3, limit_rate=5e-4)
    assert cell.advance(10.0) == 0 and cell.cell[k.CELL_TRIPPED] == 1


def test_an_electrode_without_contact_opens_the_circuit():
    cell = Cell()
    cell.k_hz[:] = 0
    cell.drive = drive(k.GALVANOSTATIC, 1e-3)
    before = cell.c.copy()
    assert cell.advance(10.0) == 0 and cell.drive[k.DRIVE_MODE] == k.OFF
    np.testing.assert_array_equal(cell.c, before)


def test_result_hardly_depends_on_how_time_is_cut():
    coarse, fine = Cell(), Cell()
    for cell in (coarse, fine):
        cell.c[:] = cell.c_surface[:] = 0.6
        cell.drive = drive(k.GALVANOSTATIC, -1e-4)
    coarse.advance(600.0, diffusion_s=100.0)
    for _ in range(6000):
        fine.advance(0.1, diffusion_s=100.0)
    np.testing.assert_allclose(coarse.c, fine.c, atol=2e-4)


def test_steady_profile_is_that_of_diffusion_in_a_sphere():
    """At constant flux the surface stands above the mean by tau/15 times the rate."""
    cell = Cell(2)
    cell.c[:] = cell.c_surface[:] = 0.3
    cell.drive = drive(k.GALVANOSTATIC, 1e-4)
    cell.advance(900.0, diffusion_s=300.0)
    np.testing.assert_allclose((cell.c_surface - cell.c)[1], 300.0 * cell.c_rate[1] / 15, rtol=0.01)
