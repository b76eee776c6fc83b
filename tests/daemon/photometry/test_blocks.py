import numpy as np
import pytest

from daemon.photometry.blocks import Block, BlockMeans, History, finite_mean


def frame(value: float, particles: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    values = np.full((particles, 5), value)
    return values, np.ones((particles, 5), bool), np.full(particles, 0.04)


def test_a_block_is_the_mean_of_its_frames() -> None:
    means = BlockMeans(2, 1.0)
    assert means.add(0.2, *frame(1.0)) is None
    assert means.add(0.6, *frame(3.0)) is None
    block = means.add(1.1, *frame(9.0))
    assert block is not None
    assert block.t_s == pytest.approx(0.4)
    assert block.values == pytest.approx(np.full((2, 5), 2.0))
    assert block.variance == pytest.approx([0.02, 0.02])


def test_unmeasured_values_do_not_count() -> None:
    means = BlockMeans(1, 1.0)
    means.add(0.0, *frame(4.0, 1))
    means.add(0.5, np.zeros((1, 5)), np.zeros((1, 5), bool), np.zeros(1))
    block = means.flush()
    assert block is not None
    assert block.values[0, 0] == 4.0
    means.add(2.0, np.zeros((1, 5)), np.zeros((1, 5), bool), np.zeros(1))
    empty = means.flush()
    assert empty is not None
    assert np.isnan(empty.values).all()
    assert np.isnan(empty.variance).all()


def test_frames_without_time_or_back_in_time_are_counted() -> None:
    means = BlockMeans(1, 1.0)
    means.add(5.0, *frame(1.0, 1))
    means.add(3.0, *frame(7.0, 1))
    means.add(float("nan"), *frame(7.0, 1))
    assert means.out_of_order == 2
    block = means.flush()
    assert block is not None
    assert block.values[0, 0] == 1.0


def test_history_halves_its_resolution_when_full_and_keeps_the_mean() -> None:
    history = History(1, 8)
    for k in range(37):
        history.append(Block(float(k), np.full((1, 5), float(k)), np.array([0.5])))
    history.close()
    assert len(history) <= 8
    assert history.contrast[:, 0] == pytest.approx(history.t_s)
    assert (np.diff(history.t_s) > 0).all()
    assert history.t_s[-1] > 32
    assert history.variance[0, 0] == pytest.approx(0.5 / 8)


def test_history_pairs_leave_gaps_out() -> None:
    history = History(1, 4)
    for value in (np.nan, 2.0, np.nan, np.nan):
        variance = np.array([0.1 if np.isfinite(value) else np.nan])
        history.append(Block(0.0, np.full((1, 5), value), variance))
    assert history.contrast[0, 0] == 2.0
    assert np.isnan(history.contrast[1, 0])
    assert history.variance[0, 0] == pytest.approx(0.1)


def test_a_cleared_history_is_as_new() -> None:
    used, new = History(2, 8), History(2, 8)
    for k in range(37):
        used.append(Block(float(k), np.full((2, 5), 100.0), np.full(2, 3.0)))
    used.clear()
    for history in (used, new):
        for k in range(5):
            history.append(Block(float(k), np.full((2, 5), float(k)), np.full(2, 0.5)))
        history.close()
    for name in ("t_s", "contrast", "layers", "variance"):
        np.testing.assert_array_equal(getattr(used, name), getattr(new, name))


def test_finite_mean_of_nothing_is_nan() -> None:
    assert np.isnan(finite_mean(np.full((3, 2), np.nan))).all()
    assert finite_mean(np.array([[1.0, np.nan], [3.0, 4.0]])) == pytest.approx([2.0, 4.0])


def binned(value: float, particles: int = 1) -> np.ndarray:
    return np.full((particles, 8), value)


def test_axial_bins_and_rest_drift_are_averaged_with_the_frames() -> None:
    means = BlockMeans(1, 1.0)
    means.add(0.0, *frame(1.0, 1), binned(0.1), (0.2, -0.4))
    means.add(0.5, *frame(1.0, 1), binned(np.nan), (0.4, 0.0))
    means.add(0.9, *frame(1.0, 1), binned(0.3), (0.0, 0.1))
    block = means.flush()
    assert block is not None
    assert block.axial == pytest.approx(binned(0.2))
    assert block.rest_px == pytest.approx((0.2, -0.1))
    means.add(2.0, *frame(1.0, 1))
    without = means.flush()
    assert without is not None
    assert np.isnan(without.axial).all()


def test_a_history_keeps_axial_bins_and_rest_drift_as_coarsely_as_the_rest() -> None:
    history = History(1, 4)
    for k in range(8):
        history.append(Block(float(k), np.zeros((1, 5)), np.ones(1), binned(float(k)), (float(k), -1.0)))
    history.close()
    assert history.axial[:, 0, 0].tolist() == history.t_s.tolist() == [1.5, 5.5]
    assert history.rest_px.tolist() == [[1.5, -1.0], [5.5, -1.0]]


def test_a_history_of_a_source_without_bins_has_none_and_grows() -> None:
    history = History(1, 8)
    history.append(Block(0.0, np.zeros((1, 5)), np.ones(1)))
    history.grow(3)
    history.append(Block(1.0, np.zeros((3, 5)), np.ones(3), binned(0.5, 3)))
    assert np.isnan(history.axial[0]).all()
    assert history.axial[1] == pytest.approx(binned(0.5, 3))
