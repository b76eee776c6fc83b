import numpy as np
import pytest

from daemon.engine.measures import MaskSet
from daemon.photometry.mixing import PLAIN, PROFILE, mixing, shares, unmixing


def disc(radius: float) -> np.ndarray:
    """A disc with room around."""
    reach = int(radius) + 12
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    return y * y + x * x < radius**2


def mask_set(labels: np.ndarray, psf_sigma_px: float = 1.5) -> MaskSet:
    count = int(labels.max())
    place = np.zeros(count)
    return MaskSet(labels.astype(np.int32), np.arange(count), place, place, {}, psf_sigma_px, None)


@pytest.mark.parametrize("radius", [5, 8, 14])
def test_a_blurred_gradient_is_restored(radius: int) -> None:
    share = shares(disc(radius), 1.5, 3.0)
    assert share.sum(axis=1) == pytest.approx(np.ones(4))
    measured = share @ PROFILE
    assert measured[0] - measured[3] < 0.87
    surface, _, _, core = unmixing(share) @ measured
    assert surface - core == pytest.approx(1.0, abs=0.03)


def test_without_blur_layers_are_their_own() -> None:
    share = shares(disc(14), 0.05, 0.1)
    assert share == pytest.approx(np.eye(4), abs=0.01)
    surface, _, _, core = unmixing(np.eye(4))
    assert surface[0] > 0.9 and core[3] > 0.9


def test_what_all_layers_share_passes_unchanged() -> None:
    labels = disc(7).astype(int)
    labels[:4, :4] = 2
    got = mixing(mask_set(labels))
    assert got.shape == (2, 4, 4)
    assert got.sum(axis=2) == pytest.approx(np.ones((2, 4)))
    assert got[1] == pytest.approx(PLAIN), "sixteen pixels have no layers"
    assert mixing(mask_set(labels, 0.0)) == pytest.approx(np.repeat(PLAIN[None], 2, axis=0))


def test_a_removed_particle_and_one_at_the_edge_give_weights() -> None:
    labels = np.where(disc(7), 2, 0)[14:, 14:]
    got = mixing(mask_set(labels))
    assert got[0] == pytest.approx(PLAIN)
    assert np.isfinite(got[1]).all() and not np.allclose(got[1], PLAIN)
