import numpy as np
import pytest

from daemon.photometry.response import GRID, LENGTHS, SCATTERS, SIZES, Anchors, Responses, responding
from daemon.photometry.slices import completed

P = 60


def truth(f: np.ndarray) -> np.ndarray:
    """(len(f), P) bent responses of either sign."""
    rng = np.random.default_rng(3)
    size, bend, wave = rng.choice([-0.2, 0.1, 0.3], P), rng.uniform(-0.7, 0.7, P), rng.uniform(-0.05, 0.05, P)
    return size * (f[:, None] + bend * f[:, None] * (1 - f[:, None]) + wave * np.sin(6 * f[:, None]))


def fitted(f: np.ndarray, noise: float, *, shift: float = 0.0, lag: float = 0.0, seed: int = 0) -> Responses:
    contrast = truth(f) + np.random.default_rng(seed).normal(0, noise, (len(f), P)) + shift
    column = np.ones((len(f), P))
    anchors = Anchors(f, contrast, noise * column, lag * column, np.zeros(len(f), int))
    return completed(responding(anchors, P))


@pytest.mark.parametrize(("count", "noise"), [(10, 1e-4), (24, 1e-3), (40, 3e-3)])
def test_the_uncertainty_is_that_of_the_error(count: int, noise: float) -> None:
    got = fitted(np.linspace(0.02, 0.98, count), noise)
    error = (got.mean - truth(GRID).T) / got.sigma
    assert np.sqrt(np.mean(error[:, 4:-4] ** 2)) == pytest.approx(1.0, abs=0.3)
    assert np.median(got.misfit) == pytest.approx(1.0, abs=0.35)


def test_scatter_that_no_noise_explains_is_found() -> None:
    f = np.linspace(0, 1, 30)
    contrast = truth(f) + np.random.default_rng(1).normal(0, 2e-3, (30, P))
    column = np.ones((30, P))
    got = completed(responding(Anchors(f, contrast, 1e-5 * column, 0 * column, -1 - np.arange(30)), P))
    error = (got.mean - truth(GRID).T) / got.sigma
    assert 0.6 < np.sqrt(np.mean(error**2)) < 1.4


def test_a_common_lag_is_not_averaged_away() -> None:
    f = np.linspace(0, 1, 60)
    sure, lagging = fitted(f, 1e-4), fitted(f, 1e-4, lag=2e-3)
    middle = len(GRID) // 2
    assert sure.sigma[:, middle].max() < 5e-4
    assert lagging.sigma[:, middle].min() > 1.5e-3


def test_unmeasured_series_stay_unknown_and_gaps_are_bridged() -> None:
    f = np.linspace(0, 1, 20)
    contrast = truth(f)
    contrast[:, 0], contrast[8:12, 1], contrast[:, 2] = np.nan, np.nan, 0.1
    column = np.ones((20, P))
    got = completed(responding(Anchors(f, contrast, 1e-4 * column, 0 * column, -1 - np.arange(20)), P))
    assert np.isnan(got.mean[[0, 2]]).all() and np.isnan(got.sigma[[0, 2]]).all()
    assert got.mean[1] == pytest.approx(truth(GRID)[:, 1], abs=2e-3)
    assert got.sigma[1, len(GRID) // 2] > 2 * got.sigma[1, len(GRID) // 4]


def test_folded_responses_do_not_make_the_others_less_sure() -> None:
    f = np.linspace(0, 1, 14)
    contrast, folded = truth(f), np.arange(P) % 6 == 0
    contrast[:, folded] = 0.2 * np.sin(3.5 * np.pi * f[:, None] + np.arange(folded.sum()))
    contrast += np.random.default_rng(4).normal(0, 1e-3, contrast.shape)
    column = np.ones((14, P))
    anchors = Anchors(f, contrast, 1e-3 * column, 0 * column, -1 - np.arange(14))
    with_them, without = completed(responding(anchors, P)), completed(responding(anchors, P, alike=~folded))
    error = (without.mean - truth(GRID).T)[~folded] / without.sigma[~folded]
    assert np.median(without.sigma[~folded]) < 0.9 * np.median(with_them.sigma[~folded])
    assert np.sqrt(np.mean(error[:, 4:-4] ** 2)) == pytest.approx(1.0, abs=0.3)


def test_no_series_and_no_anchors_give_nothing() -> None:
    none = np.zeros((3, 0))
    assert completed(responding(Anchors(np.linspace(0, 1, 3), none, none, none, np.arange(3)), 0)).mean.shape == (
        0,
        len(GRID),
    )


def test_the_process_is_found_again_from_the_one_before_and_from_others() -> None:
    rng = np.random.default_rng(9)
    f = np.linspace(0, 1, 40)
    size, bend = rng.uniform(0.1, 0.3, P), rng.uniform(-0.5, 0.5, P)
    contrast = size * (f[:, None] + bend * (f * (1 - f))[:, None]) + rng.normal(0, 1e-3, (40, P))
    anchors = Anchors(f, contrast, np.full((40, P), 1e-3), np.zeros((40, P)), -1 - np.arange(40))
    whole = completed(responding(anchors, P))
    assert whole.process is not None
    for before in (whole.process, (0.25, 0.1, 2e-3), (LENGTHS[-1], SIZES[0], SCATTERS[-1])):
        again = completed(responding(anchors, P, before=before))
        assert again.process == whole.process
