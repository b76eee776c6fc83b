import numpy as np
import pytest

from daemon.engine.measures import MaskSet
from daemon.photometry.mixing import DIFFUSE, PLAIN, PROFILE, SHARP, doubt, shares, unmixing


def disc(radius: float) -> np.ndarray:
    """A disc with room around."""
    reach = int(radius) + 12
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    return y * y + x * x < radius**2


def mask_set(labels: np.ndarray, psf_sigma_px: float = 1.5) -> MaskSet:
    count = int(labels.max())
    place = np.zeros(count)
    return MaskSet(labels.astype(np.int32), np.arange(count), place, place, {}, psf_sigma_px, None)


def share_of(radius: float, psf_sigma_px: float = 1.5) -> np.ndarray:
    return shares(mask_set(disc(radius).astype(int), psf_sigma_px))


@pytest.mark.parametrize("radius", [4, 5, 8, 14])
def test_a_blurred_gradient_is_restored(radius: int) -> None:
    share = share_of(radius)
    assert share.sum(axis=2) == pytest.approx(np.ones((1, 4)))
    measured = share[0] @ PROFILE
    assert measured[0] - measured[3] < 0.87
    surface, _, _, core = unmixing(share, DIFFUSE)[0] @ measured
    assert surface - core == pytest.approx(1.0, abs=0.01)


def test_a_sharp_front_is_restored_where_it_is_known_to_be_one() -> None:
    share, front = share_of(14), np.array([1.0, 1.0, 0.0, 0.0])
    errors = [np.abs(unmixing(share, departure)[0] @ share[0] @ front - front).max() for departure in (SHARP, DIFFUSE)]
    assert errors[0] < 0.05 < errors[1]


def test_what_departs_from_the_profile_is_doubted_as_much_as_it_misleads() -> None:
    rng = np.random.default_rng(8)
    for radius in (6, 10, 16):
        share = share_of(radius)
        weights = unmixing(share, DIFFUSE)
        departures = rng.normal(0.0, DIFFUSE, (20_000, len(PROFILE)))
        off = departures @ (weights[0] @ share[0] - np.eye(4)).T
        told = doubt(share, weights, DIFFUSE)
        assert told.shape == (1,) and (off[:, 0] - off[:, 3]).std() == pytest.approx(told[0], rel=0.03)
    assert doubt(PLAIN[None], PLAIN[None], DIFFUSE) == pytest.approx([0.0])


def test_without_blur_layers_are_their_own() -> None:
    share = share_of(14, 0.05)[0]
    assert share == pytest.approx(np.eye(4), abs=0.01)


def test_what_all_layers_share_passes_unchanged_and_noise_stays_bounded() -> None:
    for radius, most in ((5, 2.3), (10, 1.4), (20, 1.2)):
        weights = unmixing(share_of(radius), DIFFUSE)[0]
        assert weights.sum(axis=1) == pytest.approx(np.ones(4))
        assert np.linalg.norm(weights[0] - weights[3]) / np.sqrt(2.0) < most


def test_small_and_removed_particles_and_ones_at_the_edge_have_shares() -> None:
    labels = np.where(disc(7), 2, 0)[14:, 14:]
    labels[-4:, -4:] = 3
    got = shares(mask_set(labels))
    assert got[[0, 2]] == pytest.approx(np.stack([PLAIN, PLAIN])), "sixteen pixels have no layers"
    assert np.isfinite(got[1]).all() and not np.allclose(got[1], PLAIN)
    assert shares(mask_set(labels, 0.0)) == pytest.approx(np.repeat(PLAIN[None], 3, axis=0))
