import numpy as np
import pytest

from hw.twin.sample import BOUND, GAP_PX, MARGIN_PX, CrowdedError, make_sample
from hw.twin.settings import SampleOptions

DEFAULT = make_sample(SampleOptions())


def test_particles_keep_apart_and_inside():
    sample = DEFAULT
    bound = BOUND * sample.radius_px
    distance = np.hypot(*(a[:, None] - a[None, :] for a in (sample.y_px, sample.x_px)))
    np.fill_diagonal(distance, np.inf)
    assert (distance - bound[:, None] - bound[None, :]).min() >= GAP_PX - 1e-6
    for place, size in ((sample.y_px, 600), (sample.x_px, 960)):
        assert (place - bound >= MARGIN_PX - 1e-6).all() and (place + bound <= size - 1 - MARGIN_PX + 1e-6).all()


def test_radii_are_lognormal_as_asked():
    um = DEFAULT.radius_px * 0.096
    assert np.median(um) == pytest.approx(1.35, rel=0.05) and np.log(um).std() == pytest.approx(0.3, rel=0.15)


def test_kinds_are_the_fractions_asked_for_and_disjoint():
    sample = make_sample(SampleOptions(dead_fraction=0.1, folded_fraction=0.05))
    assert (sample.dead.sum(), sample.folded.sum(), (sample.dead & sample.folded).sum()) == (30, 15, 0)
    assert (sample.k_hz[sample.dead] == 0).all() and (sample.weight[sample.dead] == 0).all()
    assert sample.weight.sum() == pytest.approx(1)


def test_one_particle_stays_alive():
    assert make_sample(SampleOptions(particles=3, dead_fraction=1.0)).dead.sum() == 2


def test_kinetics_spread_and_neighbours_are_alike():
    sample = make_sample(SampleOptions(kinetics_sigma=0.4, kinetics_field_sigma=0.0, dead_fraction=0.0))
    assert np.log(sample.k_hz).std() == pytest.approx(0.4, rel=0.15)
    shared = make_sample(SampleOptions(kinetics_sigma=0.0, kinetics_field_sigma=0.5, dead_fraction=0.0))
    log_k = np.log(shared.k_hz) - np.log(shared.k_hz).mean()
    distance = np.hypot(*(a[:, None] - a[None, :] for a in (shared.y_px, shared.x_px)))
    near = (distance > 0) & (distance < 60)
    far = distance > 500
    product = log_k[:, None] * log_k[None, :] / log_k.var()
    assert product[near].mean() > 0.7 > 0.4 > product[far].mean()


def test_the_seed_decides_everything():
    again, other = make_sample(SampleOptions()), make_sample(SampleOptions(seed=2))
    for name in ("y_px", "x_px", "radius_px", "k_hz", "dead", "folded", "crack_threshold"):
        np.testing.assert_array_equal(getattr(DEFAULT, name), getattr(again, name))
    assert not np.array_equal(DEFAULT.y_px, other.y_px)


@pytest.mark.parametrize("options", [{"particles": 2000}, {"particles": 1, "radius_um": 40.0}, {"particles": 400}])
def test_a_crowd_is_refused_soon(options):
    with pytest.raises(CrowdedError, match="fit in the frame"):
        make_sample(SampleOptions(**options))
