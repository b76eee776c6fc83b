import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels import synth
from tests.kernels import naive_synth as naive

F = np.float32


def rng():
    return np.random.default_rng(7)


def contents_of(c, c_surface, fraction, invader, parts, lo=0.1, hi=0.9):
    count = len(c)
    args = [np.asarray(a, float) for a in (c, c_surface, fraction, np.full(count, lo), np.full(count, hi), invader)]
    out = np.empty((count, parts), F)
    synth.part_contents(*args, out)
    return out, naive.naive_part_contents(*args, parts)


@pytest.mark.parametrize("parts", [1, 4, 8, 16])
def test_contents_equal_the_naive_ones(parts):
    c = np.linspace(0.1, 0.9, 33)
    fraction = np.where(np.arange(33) % 3, (c - 0.1) / 0.8, np.nan)
    got, want = contents_of(c, c + 0.02, fraction, np.arange(33) % 2, parts)
    np.testing.assert_allclose(got, want, atol=1e-6)


@given(fraction=st.floats(0, 1), invader=st.sampled_from([0.0, 1.0]), parts=st.integers(1, 20))
def test_a_front_keeps_the_mean_content(fraction, invader, parts):
    content = 0.1 + 0.8 * fraction
    got, _ = contents_of([content], [content], [fraction], [invader], parts)
    assert got.mean() == pytest.approx(content, abs=1e-6)


def test_the_invader_takes_the_edge():
    poor, _ = contents_of([0.7], [0.7], [0.75], [1.0], 4)
    rich, _ = contents_of([0.3], [0.3], [0.25], [0.0], 4)
    np.testing.assert_allclose(poor[0], [0.1, 0.9, 0.9, 0.9], atol=1e-6)
    np.testing.assert_allclose(rich[0], [0.9, 0.1, 0.1, 0.1], atol=1e-6)


def test_a_profile_keeps_the_mean_and_falls_from_the_surface():
    got, _ = contents_of([0.5], [0.55], [np.nan], [0.0], 8)
    assert got.mean() == pytest.approx(0.5) and (np.diff(got[0]) < 0).all()
    assert got[0, 0] - got[0, -1] == pytest.approx(2 * 0.05 * 7 / 8, rel=1e-5)


def test_light_equals_the_naive_one_outside_of_the_table_too():
    contents = rng().uniform(-0.2, 1.2, (5, 8)).astype(F)
    response, brightness = rng().uniform(0.5, 2, (5, 32)), rng().uniform(1e3, 1e4, 5)
    out = np.empty((5, 8), F)
    synth.part_light(contents, response, brightness, out)
    np.testing.assert_allclose(out, naive.naive_part_light(contents, response, brightness), rtol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (3, 4), (20, 31)])
@pytest.mark.parametrize("taps", [1, 3, 13])
def test_blur_equals_the_naive_one(shape, taps):
    image, weights = rng().random(shape).astype(F), rng().random(taps).astype(F)
    weights = (weights + weights[::-1]) / 2
    out, scratch = np.full((2, *shape), np.nan, F)
    synth.blur(image, weights, scratch, out)
    np.testing.assert_allclose(out, naive.naive_blur(image, weights), rtol=1e-4, atol=1e-6)


def test_nan_in_an_image_stays_within_reach_of_the_blur():
    image = np.zeros((9, 9), F)
    image[4, 4] = np.nan
    out, scratch = np.empty((2, 9, 9), F)
    synth.blur(image, np.full(3, F(1 / 3)), scratch, out)
    bad = np.isnan(out)
    assert bad[3:6, 3:6].all() and bad.sum() == 9


class Sprites:
    """Three particles of two parts on a small scene, the last one overlapping the second."""

    def __init__(self):
        self.top, self.left = np.array([[0, 1], [5, 5], [6, 6]]), np.array([[0, 1], [5, 6], [7, 7]])
        self.height, self.width = np.array([[3, 1], [4, 2], [4, 3]]), np.array([[3, 2], [4, 2], [3, 3]])
        sizes = self.height * self.width
        self.start = (np.cumsum(sizes) - sizes.ravel()).reshape(sizes.shape)
        self.images = rng().random(sizes.sum()).astype(F)
        self.scene = np.zeros((12, 14), F)
        self.shown = np.zeros((3, 2), F)

    def relight(self, light, tolerance=0.0, first=0, budget=9):
        return synth.relight(
            self.scene, self.images, self.start, self.top, self.left, self.height, self.width,
            np.asarray(light, F), self.shown, F(tolerance), first, budget,
        )  # fmt: skip

    def expected(self, light):
        scene = np.zeros(self.scene.shape)
        for i in range(3):
            for k in range(2):
                y, x, h, w = self.top[i, k], self.left[i, k], self.height[i, k], self.width[i, k]
                image = self.images[self.start[i, k] : self.start[i, k] + h * w].reshape(h, w)
                scene[y : y + h, x : x + w] += light[i][k] * image.astype(float)
        return scene


def test_relight_sums_the_sprites_and_takes_back_what_was_there():
    sprites = Sprites()
    for light in ([[1, 2], [3, 4], [5, 6]], [[0, 2], [3, 1], [5, 9]], [[0, 0], [0, 0], [0, 0]]):
        assert sprites.relight(light) == 0
        np.testing.assert_allclose(sprites.scene, sprites.expected(light), atol=1e-5)


def test_relight_leaves_small_changes_for_later():
    sprites = Sprites()
    sprites.relight([[1, 1], [1, 1], [1, 1]])
    sprites.relight([[1.1, 1], [1.3, 1], [1, 1]], tolerance=0.2)
    np.testing.assert_allclose(sprites.scene, sprites.expected([[1, 1], [1.3, 1], [1, 1]]), atol=1e-5)


def test_relight_goes_round_within_its_budget():
    sprites, light = Sprites(), [[1, 1], [1, 1], [1, 1]]
    assert sprites.relight(light, budget=2) == 2
    assert (sprites.shown[2] == 0).all()
    assert sprites.relight([[9, 9], [1, 1], [1, 1]], first=2, budget=1) == 0
    assert (sprites.shown[2] == 1).all() and (sprites.shown[0] == 1).all()


@pytest.mark.parametrize("count", [1, 3, 4, 6, 8, 11])
def test_gather_equals_the_naive_one(count):
    scene = rng().random((40, 50)).astype(F)
    taps_y, taps_x = rng().normal(size=(2, count)).astype(F)
    line, out = np.full((2, 60), np.nan, F), np.empty((20, 30), F)
    synth.gather(scene, 3, 5, taps_y, taps_x, line, out)
    np.testing.assert_allclose(out, naive.naive_gather(scene, 3, 5, taps_y, taps_x, out.shape), atol=1e-4)


@pytest.mark.parametrize("dtype, full", [(np.uint8, 255), (np.uint16, 4095), (np.uint16, 65535)])
def test_expose_equals_the_naive_one(dtype, full):
    """Dark, saturated and negative light alike."""
    gain = 4096 * 8 / (full + 1)
    scene = rng().uniform(500, 20_000, (30, 40)).astype(F)
    scene[:8], scene[-8:] = -1000, 60_000
    taps = np.array([0.25, 0.5, 0.25], F)
    field = rng().uniform(0.8, 1.1, (20, 25)).astype(F)
    pool, offsets = rng().standard_normal(500).astype(F), rng().integers(0, 470, 20)
    out, line = np.empty((20, 25), dtype), np.empty((2, 60), F)
    synth.expose(
        scene, 2, 4, taps, taps, field, F(1.1), pool, offsets, F(full), F(gain), F(7), F(64 * 8 / gain), line, out
    )
    light = naive.naive_gather(scene, 2, 4, taps, taps, out.shape)
    noise = np.array([pool[o : o + 25] for o in offsets])
    want = naive.naive_digitise(light, field, 1.1, noise, full, gain, 7.0, 64 * 8 / gain)
    off = out.astype(int) - want
    assert np.abs(off).max() <= 1 and (off != 0).mean() < 0.01 * max(1, 8 / gain)  # float32 against float64 at the half
    assert out.max() == full and out.min() < 64 * 8 / gain + 5


def test_saturated_and_dark_pixels_stay_in_range():
    light, ones = np.array([np.inf, 1e9, -1e9, 0.0], F), np.ones(4, F)
    out = np.empty(4, np.uint16)
    synth.digitise(light, ones, F(1), np.array([0, 5, 5, -50], F), F(4095), F(8), F(7), F(64), out)
    assert out[1] == 4095 and out[2] == 68 and out[3] == 20


def test_hot_pixels_add_up_to_full_scale():
    out = np.array([[10, 4000], [0, 5]], np.uint16)
    synth.add_hot(out, np.array([0, 1]), np.array([1, 0]), np.array([500.0, 7.0]), 4095)
    np.testing.assert_array_equal(out, [[10, 4095], [7, 5]])


@pytest.mark.parametrize("count", [0, 1, 2, 3, 50, 51])
def test_packing_equals_the_naive_one(count):
    pixels = rng().integers(0, 4096, count).astype(np.uint16)
    out = np.zeros((count * 12 + 7) // 8, np.uint8)
    synth.pack_12p(pixels, out)
    np.testing.assert_array_equal(out, naive.naive_pack_12p(pixels))
