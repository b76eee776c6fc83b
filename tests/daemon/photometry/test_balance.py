import numpy as np
import pytest

from daemon.photometry.balance import balance
from daemon.photometry.derive import SocTable
from daemon.photometry.soc import Window
from tests.daemon.photometry.shapes_of_halves import make_curves, make_half

WINDOW = Window(0.0, 1.0)
LINE = {"kind": "monotone", "contrast_knots": [0.0, 0.2], "soc_knots": [0.0, 1.0], "soc_sigma": 0.01}


def curves(share: float = 1.0, particles: int = 30):
    """A charge in which the particles take `share` of what the cell's record says, each a little more or less."""
    own = np.random.default_rng(3).normal(0.0, 0.02, particles)
    fraction = np.linspace(0, 1, 200)[:, None]
    return make_curves(make_half(), 0.2 * np.clip(share * fraction + own * 4 * fraction * (1 - fraction), 0, 1))


def table(particles: int = 30) -> SocTable:
    return SocTable(dict.fromkeys(range(particles), LINE), particles)


def test_particles_that_take_the_cells_charge_balance_within_their_sampling() -> None:
    got = balance(curves(), table(), WINDOW, np.ones(30))
    assert got.scale == pytest.approx(1.0, abs=0.01)
    assert got.offset == pytest.approx(0.0, abs=0.01)
    assert got.rms < 3 * got.sampling < 0.02


def test_a_field_of_view_that_takes_less_shows() -> None:
    got = balance(curves(0.9), table(), WINDOW, np.ones(30))
    assert got.scale == pytest.approx(0.9, abs=0.01)
    assert got.rms > 5 * got.sampling
    assert got.told()["charge_balance_scale"] == got.scale


def test_nothing_is_said_without_window_calibration_particles_or_charge() -> None:
    assert np.isnan(balance(curves(), table(), None, np.ones(30)).scale)
    assert np.isnan(balance(curves(), SocTable({}, 30), WINDOW, np.ones(30)).scale)
    assert np.isnan(balance(curves(), table(), Window(0.0, 9.0), np.ones(30)).scale)
    assert np.isnan(balance(curves(particles=1), table(1), WINDOW, np.zeros(1)).scale)
    assert np.isfinite(balance(curves(particles=1), table(1), WINDOW, np.ones(1)).scale)
