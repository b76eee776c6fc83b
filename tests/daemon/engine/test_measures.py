from dataclasses import replace

import numpy as np
import pytest

from daemon.engine.measures import Detection, MaskSet, MeasureBatch, kept_columns


def masks(active=None):
    labels = np.zeros((6, 12), np.int32)
    for i in range(4):
        if active is None or active[i]:
            labels[1:4, 3 * i : 3 * i + 2] = i + 1
    place = np.arange(4.0)
    table = {"area_px": place + 100}
    parents = np.array([0, 0, 7, 0])
    return MaskSet(
        labels, np.arange(5, 9), place, place, table, 1.5, None, parent_id=parents,
        active=None if active is None else np.array(active),
    )  # fmt: skip


def batch(columns, frames=3):
    row = np.arange(frames, dtype=float)
    wide = np.arange(frames * columns, dtype=np.float32).reshape(frames, columns)
    layers = np.repeat(wide[:, :, None], 4, axis=2)
    detection = Detection(1, 0, 2, 0.1, 0.01, 9.0, 0.0)
    return MeasureBatch(
        row.astype(int), row, row, row, row, row, row, row, row, row.astype(np.uint32), wide, wide, layers, layers,
        wide, wide, wide.astype(np.uint16), [detection], wide[0].astype(float), layers[0].astype(float),
    )  # fmt: skip


GONE = [True, False, True, True]


def test_measured_masks_are_numbered_without_the_removed():
    compact = masks(GONE).measured()
    assert compact.particle_id.tolist() == [5, 7, 8] and compact.count == 3 and compact.active is None
    assert compact.table["area_px"].tolist() == [100, 102, 103] and compact.parent_id.tolist() == [0, 7, 0]
    whole = masks()
    for new, old in ((1, 1), (2, 3), (3, 4)):
        np.testing.assert_array_equal(compact.labels == new, whole.labels == old)


def test_a_batch_is_spread_over_all_particles():
    one = batch(3)
    spread = one.spread(masks(GONE))
    assert spread.flux_e.shape == (3, 4) and spread.layer_flux_e.shape == (3, 4, 4)
    np.testing.assert_array_equal(spread.flux_e[:, [0, 2, 3]], one.flux_e)
    assert np.isnan(spread.flux_e[:, 1]).all() and np.isnan(spread.layer_sigma_e[:, 1]).all()
    assert spread.particle_flags.dtype == np.uint16 and not spread.particle_flags[:, 1].any()
    assert np.isnan(spread.baseline_flux_e[1]) and np.isnan(spread.baseline_layer_flux_e[1]).all()
    np.testing.assert_array_equal(spread.baseline_flux_e[[0, 2, 3]], one.baseline_flux_e)
    assert [found.index for found in spread.detections] == [2]
    assert one.detections[0].index == 1, "the batch itself is not changed"


def test_a_batch_of_masks_nobody_removed_from_is_as_it_was():
    one = batch(4)
    assert one.spread(masks()) is one


def test_a_batch_without_f0_is_spread_without_it():
    early = replace(batch(3), baseline_flux_e=None, baseline_layer_flux_e=None).spread(masks(GONE))
    assert early.baseline_flux_e is None and early.baseline_layer_flux_e is None


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (None, None, [0, 1, 2, 3]),
        (None, GONE, [0, 2, 3]),
        (GONE, GONE, [0, 1, 2]),
        (GONE, [True, False, False, True], [0, 2]),
    ],
)
def test_columns_that_stay_are_found_again(before, after, expected):
    assert kept_columns(masks(before), masks(after)).tolist() == expected
