from __future__ import annotations

import numpy as np
import pytest

from daemon.photometry.shape import centroids, shape_table
from daemon.tables import PARTICLES

ELSEWHERE = {"particle_id", "parent_id", "y_px", "x_px", "front_mode", "calibration", "state"}


def drawn(*boxes, shape=(120, 160)):
    labels = np.zeros(shape, np.int32)
    for i, (top, left, height, width) in enumerate(boxes, start=1):
        labels[top : top + height, left : left + width] = i
    return labels


def table_of(labels, signal_e=None, psf_sigma_px=1.5, pixel_size_nm=100.0):
    signal_e = np.where(labels > 0, 10.0, 0.0) if signal_e is None else signal_e
    return shape_table(labels, signal_e, psf_sigma_px, pixel_size_nm)


def test_columns_are_those_of_the_export():
    table = table_of(drawn((10, 10, 9, 9)))
    assert set(table) == set(PARTICLES) - ELSEWHERE
    assert all(column.dtype == np.float64 and column.shape == (1,) for column in table.values())


def test_a_rectangle():
    table = table_of(drawn((20, 30, 8, 24)))
    assert table["area_px"] == 8 * 24
    assert table["equivalent_diameter_um"] == pytest.approx(np.sqrt(4 * 192 / np.pi) * 0.1)
    assert table["major_um"] == pytest.approx(0.1 * 4 * np.sqrt((24**2) / 12), rel=0.01)
    assert table["minor_um"] == pytest.approx(0.1 * 4 * np.sqrt((8**2) / 12), rel=0.01)
    assert table["aspect_ratio"] == pytest.approx(3, rel=0.01)
    assert table["solidity"] == pytest.approx(1)
    assert table["brightness_e"] == 1_920


def test_neighbours():
    table = table_of(drawn((0, 0, 9, 9), (0, 30, 9, 9), (100, 150, 9, 9)))
    assert table["nearest_neighbour_um"][:2] == pytest.approx([3.0, 3.0])
    assert table["nearest_neighbour_um"][2] == pytest.approx(np.hypot(100, 120) * 0.1)
    assert table["neighbours_within_10um"].tolist() == [1, 1, 0]


def test_a_single_particle_has_no_neighbour():
    table = table_of(drawn((10, 10, 9, 9)))
    assert np.isnan(table["nearest_neighbour_um"]).all()
    assert table["neighbours_within_10um"].tolist() == [0]


def test_without_a_pixel_size_lengths_are_unknown():
    table = table_of(drawn((10, 10, 9, 9), (40, 40, 5, 9)), pixel_size_nm=None)
    unknown = {name for name, column in table.items() if np.isnan(column).all()}
    assert unknown == {
        "equivalent_diameter_um",
        "major_um",
        "minor_um",
        "nearest_neighbour_um",
        "neighbours_within_10um",
    }
    assert np.isfinite([table[name] for name in set(table) - unknown]).all()


def test_brightness_takes_the_blurred_rim_but_not_the_neighbours():
    labels = drawn((40, 40, 10, 10), (40, 54, 10, 10))
    signal = np.zeros(labels.shape)
    signal[38:52, 38:52] = 1.0
    signal[38:52, 52:66] = 3.0
    signal[0, 0] = 1e6
    assert table_of(labels, signal, psf_sigma_px=1.0)["brightness_e"] == pytest.approx([196, 3 * 196], rel=0.03)


def test_unknown_pixels_count_nothing():
    labels = drawn((40, 40, 10, 10))
    signal = np.where(labels > 0, 1.0, 0.0)
    signal[45, 45] = np.nan
    assert table_of(labels, signal)["brightness_e"] == 99


def test_a_line_of_pixels_has_no_aspect_ratio():
    table = table_of(drawn((10, 10, 1, 9)))
    assert np.isnan(table["aspect_ratio"]).all()


def test_centroids_in_label_order():
    y, x = centroids(drawn((50, 10, 5, 5), (10, 20, 3, 7)))
    assert y.tolist() == [52, 11]
    assert x.tolist() == [12, 23]
