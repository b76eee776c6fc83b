import numpy as np
import pytest

from tests.accuracy.ceiling import most_announced, sigma_of, signal_of
from tests.accuracy.precursors import FORMS, HYSTERESIS, STEPWISE, Precursors

CYCLES = 30


def test_what_shows_early_can_be_announced_and_what_shows_late_cannot() -> None:
    since = np.maximum(np.arange(CYCLES) - 10.0, 0.0)
    course = np.stack([since, 1e-3 * since, np.where(since > 11, 50.0, 0.0)], axis=1)[..., None]
    best = most_announced(course, np.ones((3, 1)), np.full(3, 24), np.full(3, 10), 5, 0.05)
    assert best[0] > 0.95
    assert (best[1:] < 0.15).all()


def test_levels_told_as_means_of_two_cycles_give_back_single_ones_and_their_noise() -> None:
    noise = np.random.default_rng(3).normal(0, 0.5, (4000, 1, 1))
    assert sigma_of((noise[1:] + noise[:-1]) / 2)[0, 0] == pytest.approx(0.5, rel=0.1)
    line = np.arange(10.0)[:, None, None]
    assert signal_of((line[1:] + line[:-1]) / 2)[1:] == pytest.approx(line[2:])


def test_precursors_end_as_their_form_says_and_the_harmless_stop() -> None:
    fates = Precursors.draw(np.random.default_rng(4), 600, 50, 0.5)
    last = np.array([fates.gain(cycle) for cycle in range(50)])
    assert (np.diff(last, axis=0) <= 1e-12).all()
    losing = fates.fails & (fates.form < HYSTERESIS) & (fates.form > 0)
    assert ((1 - last[-1][losing] >= 0.0999) & (1 - last[-1][losing] <= 0.2501)).all()
    assert (last[-1][fates.harmless] >= 0.92 - 1e-9).all()
    assert set(fates.form.tolist()) == set(range(len(FORMS)))
    assert ((fates.failure[fates.fails] >= 14) & (fates.failure[fates.fails] < 50)).all()
    assert (fates.hysteresis_v(49)[fates.fails & (fates.form == STEPWISE)] == 0).all()
