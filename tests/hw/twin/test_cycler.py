import numpy as np
import pytest

from hw.twin.cycler import WINDOW_V, Cycler
from hw.twin.electrode import Electrode
from hw.twin.sample import make_sample
from tests.hw.twin.conftest import options_of


def electrode(material="nmc"):
    return Electrode(make_sample(options_of(material=material, particles=5)))


def course(cycler, count, interval_s):
    rows = []
    for _ in range(count):
        cycler.advance(interval_s)
        rows.append((cycler.electrode.voltage_v, cycler.electrode.current_ma))
    return np.array(rows)


@pytest.mark.parametrize("material", ["nmc", "lfp", "lco", "graphite"])
def test_it_cycles_between_the_ends_of_the_window(material):
    rows = course(Cycler(electrode(material), 2.0), 500, 20.0)
    turns = np.flatnonzero(np.diff(np.sign(rows[:, 1])))
    assert len(turns) >= 3
    low_v, high_v = WINDOW_V[material]
    assert low_v - 0.1 < rows[:, 0].min() and rows[:, 0].max() < high_v + 0.05
    np.testing.assert_allclose(np.abs(rows[:, 1]), 1.0, rtol=1e-6)


def test_it_rests_before_each_half():
    rows = course(Cycler(electrode(), 2.0, rest_s=300.0), 400, 10.0)
    at_rest = rows[:, 1] == 0
    assert at_rest[:29].all() and not at_rest[31]
    first = np.flatnonzero(~at_rest & (rows[:, 1] < 0))[0]
    assert at_rest[first - 29 : first].all()


def test_rate_zero_rests():
    assert (course(Cycler(electrode(), 0.0), 20, 100.0)[:, 1] == 0).all()


def test_time_is_exact():
    cycler = Cycler(electrode(), 1.0, rest_s=0.7)
    for _ in range(7):
        cycler.advance(0.3)
    assert cycler.electrode.t_s == pytest.approx(2.1)
