"""The arithmetic against its twins, and what it promises against a disc that moves and blurs without any noise."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import photometry as ph
from kernels.background import STATES
from tests.kernels import naive_photometry as naive
from tests.kernels.naive_photometry import RADIUS_PX, SIGMA_PX, SIZE, derivatives, disc, moved_scene

SEEDS = st.integers(0, 2**32 - 1)
UNIT_E = 1 / 64  # electrons a count: so fine that whole numbers are no noise
FLOOR_E2 = 50.0
LAYERS, BINS = slice(ph.LAYER, ph.LAYER + 4), slice(ph.AXIAL, ph.AXIAL + ph.AXIAL_BINS)


def _moved(dy, dx, blur):
    out = np.empty(ph.TERMS, np.float32)
    ph.monomials(dy, dx, blur, out)
    return out


class Eye:
    """One particle's weights, laid out by hand, and what the reference says of them."""

    def __init__(self, anchor):
        background, particle = disc()
        y, x = np.mgrid[0:SIZE, 0:SIZE] - SIZE / 2
        distance = np.hypot(y, x)
        edge = np.clip((RADIUS_PX + 5.0 - distance) / 2.0, 0.0, 1.0)
        mask = edge**2 * (3.0 - 2.0 * edge)
        sector = np.clip((y + RADIUS_PX) / (2 * RADIUS_PX) * ph.AXIAL_BINS, 0, ph.AXIAL_BINS - 1).astype(int)
        layer = np.searchsorted(np.sqrt([0.75, 0.5, 0.25])[::-1] * RADIUS_PX, distance)
        planes = [mask * (sector == k) for k in range(ph.AXIAL_BINS)] + [mask * (layer == 2 - k) for k in range(3)]
        planes += [mask * y, mask * x, *np.gradient(mask)] + [np.zeros_like(mask)] * (ph.SUMS - ph.SHIFT_Y)
        real = np.stack(planes).reshape(ph.SUMS, -1)
        largest = np.maximum(np.abs(real).max(axis=1), 1e-9)
        largest[: ph.MOMENT_Y] = 1.0
        self.weights = np.rint(real / largest[:, None] * 127).astype(np.int8)
        self.scale = largest[None] / 127
        real = self.weights * self.scale[0][:, None]
        self.weight_sums = real.sum(axis=1)[None]
        terms = derivatives(background + particle, anchor).reshape(ph.TERMS, -1)
        self.taylor = (terms @ real.T).astype(np.float32)[None]
        light = real @ particle.reshape(-1)
        self.reference_flux, self.reference_bend = (
            np.array([light[: ph.AXIAL_BINS].sum()]),
            light[None, ph.BEND_Y : ph.SHIFT_Y],
        )
        mask, total = real[: ph.AXIAL_BINS].sum(axis=0), (background + particle).reshape(-1)
        parts = [mask * (layer.reshape(-1) == k) for k in (3, 2, 1, 0)]
        self.layer_noise = np.array([[(m * m * total).sum() / (m * total).sum(), (m * m).sum()] for m in parts])[None]

    def measure(self, dy=0.0, dx=0.0, blur=0.0, brightness=1.0, gain=1.0, dark=0.0, noise=None):
        """The measures of the scene moved, blurred, brightened and lit otherwise; drift and blur are told."""
        background, particle = disc()
        scene = (background + brightness * moved_scene(particle, dy, dx, blur)) * gain
        if noise is not None:
            scene = noise.poisson(scene) + noise.normal(0.0, np.sqrt(FLOOR_E2), scene.shape)
        counts = np.rint(scene / UNIT_E + dark).astype(np.int64).reshape(-1)
        state = np.zeros((1, STATES))
        state[0, 0] = 5_000.0
        out = np.empty((1, ph.MEASURES), np.float32)
        ph.fluxes(
            (self.weights.astype(np.int64) @ counts)[None], dark * self.weight_sums, self.scale, self.weight_sums,
            self.taylor, self.reference_flux, self.reference_bend, self.layer_noise, np.array([UNIT_E, FLOOR_E2]),
            np.array([dy, dx]), _moved(dy, dx, blur), np.array([gain]), np.zeros(1), state, np.ones(1, bool), out,
        )  # fmt: skip
        return out[0].astype(float)

    def change(self, *moved, **scene):
        """Largest change of (flux, layers, axial bins) relative to the flux, and of the centroid in px."""
        still, now = self.measure(**scene), self.measure(*moved, **scene)
        parts = [np.abs(now[c] - still[c]).max() / abs(still[ph.FLUX]) for c in (ph.FLUX, LAYERS, BINS)]
        return (*parts, np.abs(now[ph.CENTROID_Y :] - still[ph.CENTROID_Y :]).max())


@pytest.fixture(scope="module")
def eye():
    return Eye(0.5 * SIGMA_PX**2)


def _series_error(dy, dx, blur):
    """Largest error of a pixel, relative to the particle's brightness."""
    _, particle = disc()
    terms = derivatives(particle, 0.5 * SIGMA_PX**2).reshape(ph.TERMS, -1).astype(np.float32)
    terms = np.pad(terms, ((0, 0), (0, -particle.size % ph.SHIFT_Y)))
    taylor = np.ascontiguousarray(terms.reshape(ph.TERMS, -1, ph.SHIFT_Y).swapaxes(0, 1))
    told = np.empty(taylor[:, 0].shape, np.float32)
    for p in range(len(taylor)):
        ph.changes(taylor, p, _moved(dy, dx, blur), told[p])
    told = told.reshape(-1)[: particle.size]
    exact = (moved_scene(particle, dy, dx, blur) - particle).reshape(-1)
    return np.abs(told - exact).max() / 12_000.0


@pytest.mark.parametrize(
    ("dy", "dx", "blur", "within"),
    [
        (0.0, 0.0, 0.0, 1e-9),
        (0.1, 0.0, 0.0, 1e-6),
        (0.0, -0.3, 0.0, 5e-5),
        (0.6, 0.0, 0.0, 8e-4),
        (0.6, -0.6, 0.0, 3e-3),
        (0.0, 0.0, 0.1, 1e-3),
        (0.0, 0.0, 0.5, 1e-6),  # the anchor: exact by construction
        (0.0, 0.0, -0.2, 3e-3),
        (0.0, 0.0, 0.77, 7e-3),
        (0.1, 0.0, 0.33, 2e-3),
        (0.3, 0.0, 0.33, 6e-3),
        (0.6, 0.0, 0.33, 1.5e-2),
    ],
)
def test_the_series_is_what_shift_and_blur_really_do(dy, dx, blur, within):
    """Blur in units of the PSF's variance; the brightness changes by up to a quarter at the particle's rim."""
    assert _series_error(dy, dx, blur * SIGMA_PX**2) < within


def test_half_the_drift_leaves_a_sixteenth_of_the_error():
    assert _series_error(0.5, -0.25, 0.0) / _series_error(0.25, -0.125, 0.0) == pytest.approx(16.0, rel=0.3)


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_changes_equal_naive(seed):
    rng = np.random.default_rng(seed)
    wide = ph.SHIFT_Y + int(rng.integers(0, 5))
    taylor = (rng.normal(0, 1, (3, ph.TERMS, wide)) * 10.0 ** rng.integers(-3, 7, (ph.TERMS, 1))).astype(np.float32)
    moved = rng.uniform(-1, 1, ph.TERMS).astype(np.float32)
    out = np.full(ph.SHIFT_Y, np.nan, np.float32)
    for p in range(3):
        ph.changes(taylor, p, moved, out)
        own = taylor[p, :, : ph.SHIFT_Y]
        rounding = 1e-6 * np.abs(own * moved[:, None]).sum(axis=0)
        assert (np.abs(out - naive.naive_changes(own, moved)) <= rounding).all()


DRIFTS = [(0.6, 0.0), (0.0, -0.6), (0.6, -0.6), (-0.4, 0.5)]


@pytest.mark.parametrize("drift", DRIFTS)
@pytest.mark.parametrize("brightness", [1.0, 0.5, 3.0])
def test_drift_moves_nothing(eye, drift, brightness):
    flux, layers, bins, centroid_px = eye.change(*drift, brightness=brightness)
    assert max(flux, layers, bins) < 1e-4
    assert centroid_px < 5e-4


@pytest.mark.parametrize(("blur", "within"), [(0.33, 1e-4), (-0.2, 1e-4), (0.77, 2e-4)])
def test_blur_changes_nothing(eye, blur, within):
    """0.77 of the PSF's variance widen it by a third."""
    flux, layers, bins, centroid_px = eye.change(0.0, 0.0, blur * SIGMA_PX**2, brightness=1.3)
    assert flux < 3e-5
    assert max(layers, bins) < within
    assert centroid_px < 5e-4


@pytest.mark.parametrize("drift", DRIFTS)
@pytest.mark.parametrize(("blur", "layers_within"), [(0.33, 7e-4), (0.77, 1.5e-3)])
def test_drift_and_blur_together_leave_the_flux_alone(eye, drift, blur, layers_within):
    flux, layers, bins, centroid_px = eye.change(*drift, blur * SIGMA_PX**2)
    assert flux < 1e-4
    assert layers < layers_within
    assert bins < 4e-4
    assert centroid_px < 5e-3


@pytest.mark.parametrize(("gain", "dark"), [(1.0, 4_096.0), (0.8, 0.0), (1.25, 640.0)])
def test_light_and_dark_level_are_taken_off(eye, gain, dark):
    plain, other = eye.measure(0.3, -0.2), eye.measure(0.3, -0.2, gain=gain, dark=dark)
    for columns in (ph.FLUX, LAYERS, BINS):
        np.testing.assert_allclose(other[columns], plain[columns], rtol=1e-5)
    np.testing.assert_allclose(other[ph.CENTROID_Y :], plain[ph.CENTROID_Y :], atol=1e-4)


def test_parts_add_up_and_brightness_is_measured_in_proportion(eye):
    still = eye.measure()
    assert still[ph.FLUX] == pytest.approx(eye.reference_flux[0], rel=1e-6)
    for brightness in (-0.5, 0.02, 0.5, 2.0, 20.0):
        measured = eye.measure(brightness=brightness)
        np.testing.assert_allclose(measured[LAYERS].sum(), measured[ph.FLUX], rtol=1e-4)
        np.testing.assert_allclose(measured[BINS].sum(), measured[ph.FLUX], rtol=1e-4)
        np.testing.assert_allclose(measured[BINS] / still[BINS], brightness, rtol=1e-3)
        np.testing.assert_allclose(measured[ph.CENTROID_Y :], still[ph.CENTROID_Y :], atol=1e-3)


@pytest.mark.parametrize("brightness", [-0.3, 1.0, 2.0])
def test_sigmas_are_the_true_scatter(eye, brightness):
    rng = np.random.default_rng(1)
    many = np.array([eye.measure(brightness=brightness, gain=0.9, noise=rng) for _ in range(800)])
    scatter = many.std(axis=0)
    assert many[:, ph.SIGMA].mean() / scatter[ph.FLUX] == pytest.approx(1.0, abs=0.08)
    np.testing.assert_allclose(many[:, ph.LAYER_SIGMA : ph.AXIAL].mean(axis=0) / scatter[LAYERS], 1.0, atol=0.08)


def _particles(rng, particles):
    """Arguments of `fluxes` without rhyme or reason, in the order of the kernel."""
    background = np.zeros((particles, STATES))
    background[:, 0], background[:, 1] = rng.normal(5_000, 2_000, particles), rng.uniform(0, 10, particles)
    background[rng.random(particles) < 0.1, 0] = np.nan
    reference_flux = rng.normal(0, 3e7, particles)
    reference_flux[rng.random(particles) < 0.2] = 0.0
    weight_sums = rng.normal(0, 300, (particles, ph.SUMS))
    weight_sums[:, : ph.MOMENT_Y] = np.abs(weight_sums[:, : ph.MOMENT_Y])
    return [
        rng.integers(-(2**31), 2**31, (particles, ph.SUMS)), rng.normal(0, 3e4, (particles, ph.SUMS)),
        rng.uniform(1e-3, 0.1, (particles, ph.SUMS)), weight_sums,
        rng.normal(0, 1e5, (particles, ph.TERMS, ph.SHIFT_Y)).astype(np.float32), reference_flux,
        rng.normal(0, 1e5, (particles, 2)), rng.uniform(0, 1, (particles, 4, 2)) * [1.0, 300.0],
        np.array([rng.uniform(0.1, 8), rng.uniform(0, 60)]), rng.uniform(-0.6, 0.6, 2),
        _moved(*rng.uniform(-0.6, 0.6, 3)), rng.uniform(0.5, 1.5, particles), rng.uniform(0, 1e-6, particles),
        background, rng.random(particles) < 0.8,
    ]  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(0, 9))
def test_fluxes_equal_naive(seed, particles):
    args = _particles(np.random.default_rng(seed), particles)
    out = np.full((particles, ph.MEASURES), 7.0, np.float32)
    ph.fluxes(*args, out)
    with np.errstate(all="ignore"):
        want = naive.naive_fluxes(*args)
    # a flux that all but cancels leaves the rounding of float32 series beside it
    np.testing.assert_allclose(out[:, : ph.CENTROID_Y], want[:, : ph.CENTROID_Y], rtol=1e-4, atol=2.0)
    clear = ~(np.abs(want[:, ph.FLUX]) < 1e4)
    np.testing.assert_allclose(out[clear, ph.CENTROID_Y :], want[clear, ph.CENTROID_Y :], rtol=1e-3, atol=1e-2)
    assert np.isnan(out[~args[-1]]).all()


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(0, 9))
def test_shift_sums_equal_naive(seed, particles):
    rng = np.random.default_rng(seed)
    sums, dark_sums, scale, weight_sums, *_, calibration, _, _, gain, _, background, valid = _particles(rng, particles)
    background[:, 0] = np.nan_to_num(background[:, 0])
    leak = rng.normal(0, 0.1, (particles, 4))
    out = np.full(4, 7.0)
    ph.shift_sums(sums, dark_sums, scale, weight_sums, leak, calibration, gain, background, valid, out)
    want = naive.naive_shift_sums(sums, dark_sums, scale, weight_sums, leak, calibration, gain, background, valid)
    np.testing.assert_allclose(out, want, rtol=1e-9, atol=1e-1)


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(0, 9))
def test_illumination_equals_naive(seed, particles):
    rng = np.random.default_rng(seed)
    sums, dark = rng.normal(2e6, 1e5, 3), rng.normal(1e5, 1e4, 3)
    taylor, moved = rng.normal(0, 1e4, (3, ph.TERMS)), _moved(*rng.uniform(-0.6, 0.6, 3))
    covariance = np.diag(rng.uniform(1e-7, 2e-7, 3)) + rng.normal(0, 1e-8, (3, 3))
    basis = np.column_stack([np.ones(particles), rng.uniform(-1, 1, (particles, 2))])
    plane, gain = np.full(3, 7.0), np.full(particles, 7.0)
    ph.illumination(sums, dark, 5.0, taylor, moved, covariance, basis, plane, gain)
    want = covariance @ (5.0 * (sums - dark) - taylor @ moved)
    np.testing.assert_allclose(plane, want, rtol=1e-6)
    np.testing.assert_allclose(gain, basis @ want, rtol=1e-6)


@pytest.mark.parametrize(
    "sums", [(-1.0, 0.0, 0.0), (0.0, 0.0, 0.0), (0.0099, 0.0, 0.0), (np.nan, 0.0, 0.0), (1.0, np.inf, 0.0)]
)
def test_light_that_is_none_says_nothing(sums):
    plane, gain = np.zeros(3), np.zeros(2)
    still, basis = np.zeros(ph.TERMS, np.float32), np.array([[1.0, 0.5, -0.5], [1.0, -1.0, 1.0]])
    ph.illumination(np.array(sums), np.zeros(3), 1.0, np.zeros((3, ph.TERMS)), still, np.eye(3), basis, plane, gain)
    assert np.isnan(plane).all() and np.isnan(gain).all()


def test_a_hundredth_of_the_references_light_is_light():
    plane, gain, none = np.zeros(3), np.zeros(1), np.zeros((3, ph.TERMS))
    sums, still = np.array([ph.LEAST_LIGHT, 0.0, 0.0]), np.zeros(ph.TERMS, np.float32)
    ph.illumination(sums, np.zeros(3), 1.0, none, still, np.eye(3), np.array([[1.0, 0.5, 0.5]]), plane, gain)
    assert plane.tolist() == [0.01, 0.0, 0.0] and gain.tolist() == [0.01]


@pytest.mark.parametrize(("frames", "particles"), [(0, 3), (2, 0), (3, 4)])
def test_measures_are_parted_by_their_kind(frames, particles):
    measures = np.arange(frames * particles * ph.MEASURES, dtype=np.float32).reshape(frames, particles, ph.MEASURES)
    flux, sigma, y, x = np.full((4, frames, particles), np.nan, np.float32)
    layer, layer_sigma = np.full((2, frames, particles, 4), np.nan, np.float32)
    axial = np.full((frames, particles, ph.AXIAL_BINS), np.nan, np.float32)
    ph.part(measures, flux, sigma, layer, layer_sigma, axial, y, x)
    for column, found in ((ph.FLUX, flux), (ph.SIGMA, sigma), (ph.CENTROID_Y, y), (ph.CENTROID_X, x)):
        assert np.array_equal(found, measures[:, :, column])
    for column, found in ((ph.LAYER, layer), (ph.LAYER_SIGMA, layer_sigma), (ph.AXIAL, axial)):
        assert np.array_equal(found, measures[:, :, column : column + found.shape[2]])


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(0, 9))
def test_ring_levels_equal_naive(seed, rings):
    rng = np.random.default_rng(seed)
    count = rng.integers(0, 400, rings) * (rng.random(rings) > 0.3)
    sums = count * rng.integers(0, 2**15, rings)
    taylor = rng.normal(0, 100, (rings, ph.TERMS)).astype(np.float32)
    dark, calibration, moved = rng.uniform(0, 300, rings), np.array([8.0, 50.0]), _moved(*rng.uniform(-0.6, 0.6, 3))
    gain = rng.uniform(0.5, 1.5, rings)
    out = np.empty((2, rings))
    ph.ring_levels(sums, dark, count, taylor, calibration, moved, gain, out)
    want = naive.naive_ring_levels(sums, dark, count, taylor, calibration, moved, gain)
    np.testing.assert_allclose(out, want, rtol=1e-6, atol=1e-3)
    assert (np.isnan(out) == (count == 0)).all()


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(0, 9))
def test_deblend_equals_naive_whatever_the_order_of_particles(seed, particles):
    rng = np.random.default_rng(seed)
    pointer = np.concatenate([[0], np.cumsum(rng.integers(0, 4, particles))]).astype(np.int32)
    neighbour = rng.integers(0, max(particles, 1), pointer[-1]).astype(np.int32)
    share = rng.uniform(0, 0.1, pointer[-1]).astype(np.float32)
    out = rng.normal(0, 1e6, (particles, ph.MEASURES)).astype(np.float32)
    out[rng.random(particles) < 0.2] = np.nan
    want = naive.naive_deblend(pointer, neighbour, share, out)
    ph.deblend(pointer, neighbour, share, np.empty(particles, np.float32), out)
    np.testing.assert_allclose(out, want, rtol=1e-5, atol=1.0)
