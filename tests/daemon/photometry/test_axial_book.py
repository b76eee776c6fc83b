"""Rods whose ends differ by what is known, through a run's science."""

import numpy as np
import pytest

from daemon.photometry.axial import AxialRows
from daemon.photometry.axial_book import AxialBook
from daemon.photometry.derive import SocTable
from daemon.photometry.science import Science, ScienceSettings
from daemon.photometry.slices import completed
from daemon.store.axial import DRIFT
from tests.daemon.photometry.synthetic import Movie, cell_rows, charge_at, gitt
from tests.daemon.photometry.test_axial import masks_of

SHAPES = [(22.0, 7.0, 20.0 * i) for i in range(6)] + [(11.0, 11.0, 0.0)]
ROUND = 6
SIGMA, SWING = 1e-3, 0.2
ROWS = cell_rows(gitt(8))
T_S = np.arange(0.0, ROWS[-1].t_s, 20.0)
SOC = charge_at(ROWS)(T_S)
SIGN = np.array([1, -1, 1, -1, 1, -1, 1])
NOISE = np.random.default_rng(4).normal(0, SIGMA * np.sqrt(8), (len(T_S), len(SHAPES), 8))


def ahead() -> np.ndarray:
    """(N,) of the last end: 0.2 at once while current flows, gone in the rests that follow."""
    flows = np.interp(T_S, [row.t_s for row in ROWS], [row.current_ma for row in ROWS])
    out = np.zeros(len(T_S))
    for k in range(1, len(T_S)):
        out[k] = out[k - 1] + (0.2 * np.sign(flows[k]) - out[k - 1]) * 0.2
    return out


class RodMovie(Movie):
    """Particles whose fraction rises along their axis; `drift_px` moves all centroids, unseen."""

    drift_px = (0.0, 0.0)

    def _batch(self, start, stop):
        batch, part = super()._batch(start, stop), slice(start, stop)
        quarter = np.repeat((np.arange(4) - 1.5) / 3.0, 2)
        soc = SOC[part, None, None] + (ahead()[part, None] * SIGN)[..., None] * quarter
        batch.axial_flux_e = self.flux0_e / 8.0 * (1.0 + SWING * soc + NOISE[part])
        batch.flux_e = batch.axial_flux_e.sum(axis=2)
        moved = np.repeat((np.arange(start, stop) > 100)[:, None], len(SHAPES), axis=1)
        batch.centroid_y_px, batch.centroid_x_px = self.drift_px[0] * moved, self.drift_px[1] * moved
        return batch


def took(size: int = 50, drift_px: tuple[float, float] = (0.0, 0.0)):
    """(science, rows by id, blocks) of the whole run in batches of `size`."""
    masks = masks_of(SHAPES)
    movie = RodMovie(T_S, SWING * np.repeat(SOC[:, None], len(SHAPES), axis=1), SIGMA)
    movie.drift_px = drift_px
    science, rows, blocks, cell = Science(masks, ScienceSettings(capacity_mah=1.0)), {}, [], list(ROWS)
    curves = {}
    for batch in movie.batches(size):
        until = [row for row in cell if row.t_s <= batch.t_s[-1]]
        cell = cell[len(until) :]
        science.add_cell(until)
        updates = [science.add(batch)]
        if batch.t_s[-1] == T_S[-1]:
            science.add_cell(cell)
            updates.append(science.finish())
        for update in updates:
            rows |= {row["particle_id"]: row for row in update.axes}
            curves |= {row["particle_id"] - 1: row for row in update.calibrations}
            blocks += update.axial
    whole = {name: np.concatenate([each[name] for each in blocks]) for name in blocks[0]}
    return science, rows, whole, curves


@pytest.fixture(scope="module")
def run():
    return took()


def test_gradients_are_read_with_their_sigma(run):
    _, rows, blocks, curves = run
    table = SocTable(curves, len(SHAPES))
    axes = AxialRows([rows[k + 1] for k in range(len(SHAPES))])
    found, sigma = axes.gradient(table, blocks["bins"], blocks["sigma"], blocks["drift"])
    true = np.interp(blocks["t_s"], T_S, ahead())[:, None] * SIGN
    inner = (np.interp(blocks["t_s"], T_S, SOC) > 0.15) & (np.interp(blocks["t_s"], T_S, SOC) < 0.85)
    off = (found - true)[inner][:, :ROUND]
    assert np.isfinite(off).all()
    assert np.sqrt(np.mean(off**2)) < 0.035
    assert 0.8 < np.sqrt(np.mean((off / sigma[inner][:, :ROUND]) ** 2)) < 1.15
    assert np.isnan(found[:, ROUND]).all()


def test_reasons(run):
    science, rows, blocks, _ = run
    assert [rows[k + 1]["axial_unknown_why"] for k in range(7)] == [""] * 6 + ["round"]
    assert rows[ROUND + 1]["shift_unknown_why"] == "round"
    assert rows[1]["shift_unknown_why"] == ""
    assert rows[2]["axis_deg"] == pytest.approx(20.0, abs=1.0)
    assert blocks["drift"].shape == (len(blocks["t_s"]), DRIFT)
    assert np.isnan(blocks["bins"][:, ROUND]).all()
    told = science.summary()
    assert told["particles_with_axis"] == 6
    assert told["axial_gradient_rms"] < 0.2
    assert told["centroid_shift_rms_px"] < 1e-3


def test_batches_change_nothing(run):
    rows = took(37)[1]
    assert repr(rows) == repr(run[1])


def test_a_drift_that_all_particles_show_is_none_of_their_shifts():
    _, rows, blocks, _ = took(50, (0.04, -0.03))
    late = blocks["t_s"] > T_S[200]
    assert blocks["drift"][late][:, :2].mean(axis=0) == pytest.approx([0.04, -0.03], abs=2e-3)
    axes = AxialRows([rows[k + 1] for k in range(len(SHAPES))])
    place = np.tile([0.04, -0.03], (late.sum(), len(SHAPES), 1))
    none = np.zeros((late.sum(), len(SHAPES)))
    shift, _ = axes.shift(place, none, none + 1e-3, blocks["drift"][late])
    assert np.nanmax(np.abs(shift)) < 2e-3


def test_before_anything_was_measured_it_says_so():
    book = AxialBook(masks_of(SHAPES[-3:]))
    rows = completed(book.rows(np.ones(3, bool)))
    assert [row["axial_unknown_why"] for row in rows] == ["not_measured", "not_measured", "round"]
    assert book.ready() == book.finish() == []
    assert np.isnan(book.summary(SocTable({}, 3))["axial_gradient_rms"])


def test_particles_that_are_added_begin_anew():
    few, many = masks_of(SHAPES[:2]), masks_of(SHAPES[:3])
    book = AxialBook(few)
    assert book.change_masks(many) == []
    assert book.count == 3
    assert book.changed
    assert len(completed(book.rows(np.zeros(3, bool)))) == 3
