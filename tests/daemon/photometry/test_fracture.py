from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from daemon.engine.measures import MaskSet
from daemon.photometry.fracture import FEATURES, Anatomy, anatomy
from daemon.photometry.patches import EDGE_PX, GROW_SIGMA, along_axis, axial_bins, layers, smooth_step

SIZE, PSF = 45, 1.5
Y, X = np.indices((SIZE, SIZE)) - 22.0
DISC = Y**2 + (X / 1.2) ** 2 < 11.0**2


def features(light: np.ndarray) -> np.ndarray:
    """What photometry makes of a picture of the particle, by explicit sums."""
    blurred = ndimage.gaussian_filter(light, PSF)
    mask = smooth_step(1.0 - (ndimage.distance_transform_edt(~DISC) - GROW_SIGMA * PSF) / EDGE_PX)
    axial, layer = axial_bins(DISC, along_axis(DISC)), layers(DISC)
    radius = np.sqrt(DISC.sum() / np.pi)
    sums = [(mask * blurred)[axial == k].sum() for k in range(8)] + [
        (mask * blurred)[layer == k].sum() for k in range(4)
    ]
    return np.array([*sums, (mask * blurred * Y).sum() / radius, (mask * blurred * X).sum() / radius])


def change_to(light: np.ndarray) -> np.ndarray:
    before = features(DISC.astype(float))
    return (features(light) - before) / before[:8].sum()


def cracked(angle: float, offset: float, darker: float = 0.05, shift: int = 1) -> np.ndarray:
    along = Y * np.sin(angle) + X * np.cos(angle)
    light = DISC * (1.0 - darker)
    light[np.abs(along - offset) < 0.8] *= 0.3
    far = np.where(along > offset, light, 0.0)
    moved = np.roll(far, (round(shift * np.sin(angle)), round(shift * np.cos(angle))), axis=(0, 1))
    return light - far + moved


@pytest.fixture(scope="module")
def body() -> Anatomy:
    return Anatomy(DISC, PSF)


@pytest.mark.parametrize("angle", [0.0, 0.6, 1.6, 2.5])
@pytest.mark.parametrize("offset", [-3.0, 2.0])
def test_a_crack_is_explained_by_a_crack_only(body, angle, offset):
    left = body.explain(change_to(cracked(angle, offset)))
    assert left.crack < 0.05
    assert left.domain > 3 * left.crack and left.uniform > left.domain
    assert abs(left.normal[0] * np.sin(angle) + left.normal[1] * np.cos(angle)) > 0.9
    side = np.sign(left.normal[0] * np.sin(angle) + left.normal[1] * np.cos(angle))
    assert side * left.offset_px == pytest.approx(offset, abs=2.0)


@pytest.mark.parametrize("angle", [0.2, 1.1])
def test_a_domain_is_explained_by_a_domain(body, angle):
    along = Y * np.sin(angle) + X * np.cos(angle)
    left = body.explain(change_to(DISC * (1.0 - 0.3 * ((along > 1.0) & (along < 6.0)))))
    assert left.domain < 0.03
    assert left.uniform > 10 * left.domain


def test_a_shell_is_a_domain(body):
    depth = ndimage.distance_transform_edt(DISC)
    left = body.explain(change_to(DISC * (1.0 - 0.2 * (depth < 3))))
    assert left.domain < 0.03 < left.uniform


def test_all_of_it_alike_is_uniform(body):
    left = body.explain(change_to(0.9 * DISC))
    assert left.uniform < 1e-3


def test_pieces_and_their_motion(body):
    light = cracked(0.0, 2.0)
    left = body.explain(change_to(light))
    columns = body.of_crack(left.normal, left.offset_px)
    crack = np.linalg.lstsq(columns, change_to(light), rcond=None)[0]
    pieces = body.of_pieces(left.normal, left.offset_px, crack)
    assert columns.shape == (FEATURES, 7) and pieces.shape == (FEATURES, 4)
    centres, areas = body.sides(left.normal, left.offset_px)
    assert areas.sum() == DISC.sum()
    assert centres[0] @ left.normal < left.offset_px < centres[1] @ left.normal
    brighter = light * (1.0 + 0.1 * (X < 2.0))
    change = (features(brighter) - features(light)) / features(DISC.astype(float))[:8].sum()
    amount = np.linalg.lstsq(pieces[:, :2], change, rcond=None)[0]
    near, far = sorted(amount, key=abs, reverse=True)
    assert near == pytest.approx(0.1, abs=0.01) and abs(far) < 0.01


@pytest.mark.parametrize("angle", [0.0, 0.6, 2.2])
def test_pieces_add_up_to_the_cracked_particle(body, angle):
    light = cracked(angle, 2.0)
    left = body.explain(change_to(light))
    crack = np.linalg.lstsq(body.of_crack(left.normal, left.offset_px), change_to(light), rcond=None)[0]
    pieces = body.of_pieces(left.normal, left.offset_px, crack)
    whole = pieces[:, :2].sum(axis=1)
    seen = features(light) / features(DISC.astype(float))[:8].sum()
    plain = body.of_pieces(left.normal, left.offset_px, np.zeros(7))[:, :2].sum(axis=1)
    assert np.abs(whole - seen).max() < 0.01
    assert np.square(whole - seen).sum() < 0.05 * np.square(plain - seen).sum()
    for way, together in zip(np.eye(2), pieces[:, 2:].T, strict=True):
        moved = features(ndimage.shift(light, 0.2 * way, order=1)) / features(DISC.astype(float))[:8].sum()
        assert np.abs(0.2 * together - (moved - seen)).max() < 0.004


def test_without_an_outline_there_is_nothing_to_tell_by():
    labels = np.zeros((30, 30), np.int32)
    labels[4:8, 4:8] = 1
    masks = MaskSet(labels, np.array([1, 2]), np.zeros(2), np.zeros(2), {}, PSF, None)
    assert anatomy(masks, 0) is None, "too small for its shapes"
    assert anatomy(masks, 1) is None, "no pixels"
    labels[10:28, 10:28] = 2
    found = anatomy(masks, 1)
    assert found is not None and found.radius_px == pytest.approx(np.sqrt(18 * 18 / np.pi))


def test_a_wrong_background_is_no_crack_and_even_change_is_not_uneven():
    body = Anatomy(DISC, PSF)
    ground = body._weights.sum(axis=1) / body._total
    left = body.explain(-0.01 * ground - 0.03 * body._whole)
    assert left.domain < 1e-9
    assert body.uneven(0.1 * body._whole) == pytest.approx(0.0, abs=1e-15) and body.uneven(ground) > 0


def test_shapes_take_about_a_megabyte():
    """Why only a few are kept (`KEPT_ANATOMIES`)."""
    y, x = np.indices((37, 37)) - 18.0
    arrays = [each for each in vars(Anatomy(np.hypot(y, x) < 12.0, PSF)).values() if isinstance(each, np.ndarray)]
    owners = {id(owner): owner for owner in (each if each.base is None else each.base for each in arrays)}
    assert 0.5e6 < sum(owner.nbytes for owner in owners.values()) < 2e6
