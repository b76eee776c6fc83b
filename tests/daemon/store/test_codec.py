from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from daemon.errors import StoreError, StoreReason
from daemon.store import codec
from daemon.store.codec import (
    checksum,
    decode_column,
    encode_frame_column,
    encode_particle_column,
    unpack_column,
)
from daemon.tables import CHUNK_FRAME_COLUMNS, CHUNK_PARTICLE_COLUMNS
from tests.daemon.store.helpers import frames

SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12)
ANY_FLOAT32 = st.floats(width=32, allow_nan=True, allow_infinity=True, allow_subnormal=True)
FINITE_OR_NAN = st.floats(width=32, allow_infinity=False) | st.just(float("nan"))


@st.composite
def values_and_sigma(draw, elements=FINITE_OR_NAN):
    shape = draw(SHAPES)
    values = draw(hnp.arrays(np.float32, shape, elements=elements))
    sigma = draw(hnp.arrays(np.float32, shape, elements=ANY_FLOAT32))
    return values, sigma


def there_and_back(name, values, sigma):
    name_of_codec, blob = encode_particle_column(name, values, sigma)
    return name_of_codec, decode_column("particle", name, name_of_codec, blob, values.shape)


def lower_median_of_known(sigma):
    known = np.sort(sigma[np.isfinite(sigma)])
    return known[(len(known) - 1) // 2] if len(known) else 0.0


def allowed_step(values, sigma):
    """The documented step of each particle, from the documentation rather than from the code."""
    steps = []
    for column in range(values.shape[1]):
        largest = np.nanmax(np.abs(values[:, column].astype(float)), initial=0.0)
        exponent = np.floor(np.log2(largest)) if largest > 0 else -126.0
        median = float(lower_median_of_known(sigma[:, column].astype(float)))
        wanted = np.floor(np.log2(median / 16)) if median > 0 else exponent - 23
        steps.append(2.0 ** min(max(wanted, exponent - 29, -126.0), 104.0))
    return np.array(steps)


@given(values_and_sigma())
@settings(max_examples=300, deadline=None)
def test_error_of_steps_is_at_most_half_a_documented_step(pair):
    values, sigma = pair
    used, back = there_and_back("contrast", values, sigma)
    assert used == "steps"
    assert back.dtype == np.float32
    assert np.array_equal(np.isnan(back), np.isnan(values))
    error = np.abs(back.astype(float) - values.astype(float))
    bound = allowed_step(values, sigma) / 2 + np.abs(values.astype(float)) * 2.0**-24 + 2.0**-150
    assert np.all((error <= bound) | np.isnan(values))


@given(values_and_sigma(elements=st.floats(-1.0, 1.0, width=32)))
@settings(max_examples=100, deadline=None)
def test_steps_stay_below_a_sixteenth_of_sigma(pair):
    values, _ = pair
    sigma = np.full_like(values, 1e-3)
    _, back = there_and_back("layer_core", values, sigma)
    assert np.abs(back.astype(float) - values.astype(float)).max() <= 1e-3 / 32 + 2.0**-24


@given(values_and_sigma(elements=ANY_FLOAT32))
@settings(max_examples=200, deadline=None)
def test_rounded_sigma_keeps_its_kind_and_eight_bits(pair):
    values, _ = pair
    values[np.abs(values) > 1e38] = np.inf
    used, back = there_and_back("contrast_sigma", values, values)
    assert used == "rounded"
    assert np.array_equal(np.isnan(back), np.isnan(values))
    assert np.array_equal(np.isinf(back), np.isinf(values))
    finite = np.isfinite(values) & (np.abs(values) >= np.finfo("f4").tiny)
    error = np.abs(back[finite].astype(float) - values[finite].astype(float))
    assert np.all(error <= np.abs(values[finite].astype(float)) * 2.0**-9)
    assert np.array_equal(np.sign(back[finite]), np.sign(values[finite]))


def test_a_nan_of_all_bits_survives_rounding():
    values = np.array([[0x7FFFFFFF], [0xFFFFFFFF]], dtype=np.uint32).view(np.float32)
    assert np.isnan(there_and_back("contrast_sigma", values, values)[1]).all()


def test_a_column_with_an_infinity_is_kept_exactly():
    values = np.array([[1.1, np.inf], [-np.inf, np.nan]], dtype=np.float32)
    used, back = there_and_back("contrast", values, np.ones_like(values))
    assert used == "raw"
    assert back.tobytes() == values.tobytes()


def test_centroids_keep_two_thousandths_of_a_pixel():
    values = np.random.default_rng(0).normal(0, 3, (50, 4)).astype("f4")
    _, back = there_and_back("centroid_x_px", values, values)
    assert np.abs(back - values).max() <= 2.0**-12 + 1e-6


@pytest.mark.parametrize("name", CHUNK_FRAME_COLUMNS)
def test_frame_columns_are_exact(name):
    values = frames(3, 40)[0][name].astype(CHUNK_FRAME_COLUMNS[name])
    used, blob = encode_frame_column(name, values)
    assert decode_column("frame", name, used, blob, (40, 9)).tobytes() == values.tobytes()


def test_particle_flags_are_exact():
    values = frames(3, 40)[1]["flags"]
    used, back = there_and_back("flags", values, values)
    assert (used, back.dtype.str) == ("raw", "<u2")
    assert np.array_equal(back, values)


@pytest.mark.parametrize("name", CHUNK_PARTICLE_COLUMNS)
def test_no_particles_and_one_frame(name):
    for shape in ((4, 0), (1, 1)):
        values = np.zeros(shape, CHUNK_PARTICLE_COLUMNS[name])
        assert np.array_equal(there_and_back(name, values, np.ones(shape, "f4"))[1], values)


@given(blob=st.binary(max_size=200), name=st.sampled_from(["contrast", "contrast_sigma", "flags"]), data=st.data())
@settings(max_examples=200, deadline=None)
def test_garbage_is_corrupt_and_never_anything_else(blob, name, data):
    used = data.draw(st.sampled_from(["raw", "rounded", "steps", "from_the_future"]))
    with pytest.raises(StoreError) as caught:
        decode_column("particle", name, used, blob, (5, 3))
    assert caught.value.reason is StoreReason.CORRUPT


@pytest.mark.parametrize("size", [(10**9, 10**9), (-1, 3), (1 << 40, 1), (11, 7), (10, 6)])
def test_a_size_that_disagrees_is_refused_before_memory_is_taken(size):
    values = np.zeros((10, 7), "f4")
    for name in ("contrast", "contrast_sigma"):
        used, blob = encode_particle_column(name, values, values)
        with pytest.raises(StoreError) as caught:
            decode_column("particle", name, used, blob, size)
        assert caught.value.reason is StoreReason.CORRUPT


def test_checksum_is_bound_to_its_place():
    assert checksum(b"bytes", 1, "contrast") == checksum(b"bytes", 1, "contrast")
    assert len({checksum(b"bytes", 1, "contrast"), checksum(b"bytes", 2, "contrast"), checksum(b"bytes")}) == 3


def test_noise_costs_about_a_byte_a_value():
    rng = np.random.default_rng(5)
    sigma = np.full((100, 300), 2e-3, "f4")
    noise = rng.normal(0.1, 2e-3, (100, 300)).astype("f4")
    assert len(encode_particle_column("contrast", noise, sigma)[1]) / noise.size < 1.1
    assert len(codec.pack_array(noise)) / noise.size > 2.5


@pytest.mark.parametrize("name", CHUNK_PARTICLE_COLUMNS)
def test_some_particles_are_decoded_as_among_all(name):
    rng = np.random.default_rng(3)
    values = rng.normal(0, 0.1, (40, 9))
    values[5, 2] = np.nan if CHUNK_PARTICLE_COLUMNS[name].startswith("f") else 1.0
    values = values.astype(CHUNK_PARTICLE_COLUMNS[name])
    codec_name, blob = encode_particle_column(name, values, np.full((40, 9), 1e-3, np.float32))
    unpacked = unpack_column("particle", name, codec_name, blob, (40, 9))
    whole = unpacked.values().copy()
    for indices in ([8, 0, 2], [], [4], None):
        for _ in range(2):
            some = unpacked.values(None if indices is None else np.array(indices, np.int64))
            np.testing.assert_array_equal(some, whole if indices is None else whole[:, indices])
            some[:] = 0  # is the caller's own
