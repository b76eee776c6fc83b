import numpy as np
import pytest

from daemon.photometry import contrast as contrast_module
from daemon.photometry.contrast import ContrastMaker
from daemon.tables import CHUNK_FRAME_COLUMNS, CHUNK_PARTICLE_COLUMNS
from tests.daemon.photometry.synthetic import Movie

BUFFER = 10_000_000


def movie(frames: int = 20, particles: int = 2, **kwargs) -> Movie:
    return Movie(np.arange(frames) * 0.1, np.full((frames, particles), 0.1), sigma=0.0, **kwargs)


def test_batches_wait_for_f0_and_come_in_order() -> None:
    maker = ContrastMaker(2, BUFFER)
    first, second, third = movie(15).batches(5)
    assert maker.add(first) == []
    ready = maker.add(second)
    assert [part.batch is batch for part, batch in zip(ready, (first, second), strict=True)] == [True, True]
    assert len(maker.add(third)) == 1
    assert ready[0].values == pytest.approx(np.full((5, 2, 5), 0.1))


def test_f0_stays_the_first_one() -> None:
    maker = ContrastMaker(2, BUFFER)
    first, second = movie(10, baseline_frames=1).batches(5)
    maker.add(first)
    second.baseline_flux_e = np.full(2, 7.0)
    assert maker.add(second)[0].values[0, 0, 0] == pytest.approx(0.1)


def test_columns_are_those_of_chunks() -> None:
    (part,) = ContrastMaker(2, BUFFER).add(movie(10).batches(10)[0])
    for columns, kinds in (
        (part.frame_columns(), CHUNK_FRAME_COLUMNS),
        (part.particle_columns(), CHUNK_PARTICLE_COLUMNS),
    ):
        assert {name: column.dtype.str.lstrip("<|") for name, column in columns.items()} == dict(kinds)
    assert part.particle_columns()["contrast"].shape == (10, 2)


def test_a_long_baseline_is_given_out_over_several_calls_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    batches = movie(200).batches(5)
    monkeypatch.setattr(contrast_module, "RELEASED_BYTES", 4 * contrast_module._nbytes(batches[0]))
    maker = ContrastMaker(2, BUFFER)
    for batch in batches[:20]:
        batch.baseline_flux_e = batch.baseline_layer_flux_e = None
        assert maker.add(batch) == []
    given = [maker.add(batch) for batch in batches[20:]]
    assert max(map(len, given)) == 4
    assert len(given[-1]) == 1
    frames = np.concatenate([part.batch.frame for parts in given for part in parts])
    np.testing.assert_array_equal(frames, np.arange(200))


def test_sigma_is_the_frame_s_noise_relative_to_f0() -> None:
    run = Movie(np.arange(6) * 0.1, np.full((6, 1), 0.5), sigma=0.01)
    (part,) = ContrastMaker(1, BUFFER).add(run.batches(6)[0])
    assert part.sigma == pytest.approx(np.full((6, 1), 0.01))
    assert part.layer_sigma == pytest.approx(np.full((6, 1, 4), 0.02))


@pytest.mark.parametrize("flux", [0.0, np.nan, np.inf, 1e-9])
def test_an_f0_that_cannot_divide_gives_nan(flux: float) -> None:
    batch = movie(10).batches(10)[0]
    batch.baseline_flux_e = np.array([flux, 1e6])
    batch.baseline_layer_flux_e = None
    (part,) = ContrastMaker(2, BUFFER).add(batch)
    assert np.isnan(part.values[:, 0]).all()
    assert np.isfinite(part.values[:, 1, 0]).all()
    assert np.isnan(part.values[:, 1, 1:]).all()


def test_dark_particles_have_negative_flux_and_positive_sigma() -> None:
    (part,) = ContrastMaker(2, BUFFER).add(movie(10, flux0_e=-1e5).batches(10)[0])
    assert part.values[:, :, 0] == pytest.approx(np.full((10, 2), 0.1))
    assert (part.sigma >= 0).all()


def test_a_baseline_beyond_memory_is_cut_short_for_good() -> None:
    maker = ContrastMaker(2, 2_000)
    batches = movie(40, baseline_frames=1000).batches(10)
    ready = [part for batch in batches for part in maker.add(batch)]
    assert maker.truncated
    assert sum(len(part.batch) for part in ready) == 40
    assert ready[-1].values == pytest.approx(np.zeros((10, 2, 5)))


@pytest.mark.parametrize(("frames", "known"), [(5, True), (4, False), (0, False)])
def test_a_run_shorter_than_its_baseline_is_told_at_its_end(frames: int, known: bool) -> None:
    maker = ContrastMaker(2, BUFFER)
    for batch in movie(frames, baseline_frames=1000).batches(2):
        assert maker.add(batch) == []
    ready = maker.finish()
    assert sum(len(part.batch) for part in ready) == frames
    assert all(np.isfinite(part.values).all() == known for part in ready)


def test_axial_bins_are_shares_of_f0_where_the_source_has_them() -> None:
    first, second = movie(10).batches(5)
    maker = ContrastMaker(2, BUFFER)
    maker.add(first)
    second.axial_flux_e = np.full((5, 2, 8), 1.1e6 / 8)
    early, late = maker.add(second)
    assert early.axial is None
    assert late.axial == pytest.approx(np.full((5, 2, 8), 1.1 / 8))
