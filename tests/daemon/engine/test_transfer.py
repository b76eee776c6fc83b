import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.engine.transfer import Transfer, TransferSums

SHAPE = (6, 9)


def added(frames, stretches=(), common=None):
    sums = TransferSums(frames.shape[1:], common)
    for n, frame in enumerate(frames):
        if n in stretches:
            sums.begin_stretch()
        sums.add(frame)
    return sums.result()


@settings(max_examples=50, deadline=None)
@given(
    frames=st.integers(1, 12), cuts=st.sets(st.integers(1, 11)), seed=st.integers(0, 99), masked=st.booleans(),
    dtype=st.sampled_from([np.uint8, np.uint16]),
)  # fmt: skip
def test_sums_are_the_statistics_of_the_frames(frames, cuts, seed, masked, dtype):
    rng = np.random.default_rng(seed)
    movie = rng.integers(90, 200, (frames, *SHAPE)).astype(dtype)
    mask = rng.random(SHAPE) < 0.5 if masked else None
    got = added(movie, cuts, mask)
    pieces = np.split(movie.astype(float), sorted(cut for cut in cuts if cut < frames))
    differences = np.concatenate([np.diff(piece, axis=0) for piece in pieces])
    chosen = mask if mask is not None and mask.any() else np.ones(SHAPE, bool)
    common = movie[:, chosen].mean(axis=1, dtype=float)
    steps = np.concatenate([np.diff(piece[:, chosen].mean(axis=1)) for piece in pieces])
    assert (got.frames, got.pairs, got.stretches) == (frames, len(differences), len(pieces))
    assert got.common_pixels == chosen.sum() and got.common_dn == pytest.approx(common.mean())
    np.testing.assert_allclose(got.mean_dn, movie.mean(axis=0), rtol=1e-5)
    if len(differences):
        np.testing.assert_allclose(got.variance_dn2, (differences**2).mean(axis=0) / 2, rtol=1e-4)
        want = np.einsum("n,nhw->hw", steps, differences) / (steps**2).sum()
        np.testing.assert_allclose(got.step_response, want, atol=1e-3 * max(1, np.abs(want).max()))
    else:
        assert np.isnan(got.variance_dn2).all() and got.step_response is None
    if frames > 1:
        away = common - common.mean()
        want = np.einsum("n,nhw->hw", away, movie.astype(float)) / (away**2).sum()
        np.testing.assert_allclose(got.level_response, want, atol=2e-3 * max(1, np.abs(want).max()))


@pytest.mark.parametrize(("frames", "stretches"), [(50, ()), (48, range(0, 48, 2)), (48, range(0, 48, 16))])
def test_the_degrees_of_freedom_are_those_that_the_variance_scatters_with(frames, stretches):
    movie = np.random.default_rng(1).normal(500, 10, (frames, 120, 120))
    got = added(movie, stretches)
    assert 2 / got.freedom == pytest.approx(np.var(got.variance_dn2) / 100**2, rel=0.05)


def test_it_crosses_as_arrays():
    movie = np.random.default_rng(0).integers(0, 99, (5, *SHAPE))
    for one in (added(movie), added(movie[:1]), Transfer(np.ones(SHAPE), np.ones(SHAPE), 5, 4)):
        arrays = one.arrays()
        assert all(isinstance(array, np.ndarray) for array in arrays.values())
        again = Transfer.from_arrays(arrays)
        assert again.arrays().keys() == arrays.keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(again.arrays()[name], array)
