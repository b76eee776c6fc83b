from __future__ import annotations

import shutil
import sqlite3

import numpy as np
import pytest

from daemon.insight.run_data import RunData
from daemon.store.reader import RunReader
from tests.daemon.store.helpers import PARTICLES, WAIT_S, cell_row, event, frames, open_run, particle_rows


@pytest.fixture(scope="module")
def run_path(tmp_path_factory):
    with open_run(tmp_path_factory.mktemp("insight"), commit_interval_s=0.001) as (writer, path):
        writer.put_particles(particle_rows())
        knots = {"contrast_knots": [-0.01, 0.01], "soc_knots": [0.0, 1.0], "soc_sigma": 0.01}
        writer.put_calibrations([{"particle_id": 13, "kind": "monotone", **knots}])
        writer.put_events([event(0.1), event(0.3, None)])
        writer.put_cycles([
            {"particle_id": p, "cycle": c, "half": h, "swing": 0.1 * p + c}
            for p, c, h in ((11, 0, "charge"), (12, 0, "charge"), (11, 2, "charge"), (11, 0, "discharge"))
        ])  # fmt: skip
        writer.put_ensemble([{"t_s": 0.1, "soc_mean": float("nan"), "active_fraction": 0.5}])
        writer.put_cell_samples([cell_row(0.1 * i) for i in range(5)])
        for i in range(3):
            writer.put_chunk(*frames(20 * i, 20)).result(WAIT_S)
    return path


def test_tables_are_columns_with_nan_for_what_is_not_known(run_path):
    run = RunData.load(run_path)
    assert run.particle_id.tolist() == [11 + i for i in range(PARTICLES)]
    assert run.particles["front_mode"].tolist() == ["core"] * PARTICLES
    assert np.isnan(run.particles["equivalent_diameter_um"]).all()
    assert np.isnan(run.ensemble["soc_mean"]).all()
    assert run.echem["voltage_v"].tolist() == [3.7] * 5
    assert [each.particle_id for each in run.events] == [11, None]
    assert [row is not None for row in run.calibrations] == [k == 2 for k in range(PARTICLES)]


def test_cycles_are_matrices_by_cycle_and_particle(run_path):
    numbers, swing = RunData.load(run_path).by_cycle("swing", "charge")
    assert numbers.tolist() == [0, 2]
    expected = np.full((2, PARTICLES), np.nan)
    expected[0, :2], expected[1, 0] = [1.1, 1.2], 3.1
    np.testing.assert_allclose(swing, expected)
    assert RunData.load(run_path).by_cycle("swing", "rest")[1].shape == (0, PARTICLES)


@pytest.mark.parametrize("points", [1, 7, 60, 1000])
def test_traces_are_means_over_equal_groups_across_chunks(run_path, points):
    run = RunData.load(run_path)
    traces = run.traces(points)
    with RunReader(run_path) as reader:
        frame, stored = reader.particle_columns(("contrast", "contrast_sigma", "layer_core"))
    size = -(-60 // min(points, 60))
    assert len(traces.t_s) == -(-60 // size)
    for group in range(len(traces.t_s)):
        part = slice(group * size, (group + 1) * size)
        finite = np.isfinite(stored["contrast"][part])
        counts = np.where(finite.any(axis=0), finite.sum(axis=0), np.nan)
        np.testing.assert_allclose(traces.t_s[group], frame["t_s"][part].mean())
        mean = np.where(finite, stored["contrast"][part], 0).sum(axis=0, dtype=float) / counts
        np.testing.assert_allclose(traces.contrast[group], mean, rtol=1e-5, atol=1e-9)
        np.testing.assert_allclose(traces.layers[group, :, 3], stored["layer_core"][part].mean(axis=0), atol=1e-8)
        variance = np.where(finite, stored["contrast_sigma"][part].astype(float) ** 2, 0).sum(axis=0)
        np.testing.assert_allclose(traces.contrast_sigma[group], np.sqrt(variance) / counts, rtol=1e-5)
    assert np.isfinite(traces.soc[:, 2]).any()
    assert np.isnan(np.delete(traces.soc, 2, axis=1)).all()


def test_a_range_of_the_traces(run_path):
    traces = RunData.load(run_path).traces(1000, 0.2, 0.3)
    np.testing.assert_allclose(traces.t_s, np.arange(20, 31) / 100)


def test_only_the_columns_and_particles_asked_for(run_path):
    run = RunData.load(run_path)
    whole = run.traces(10)
    some = run.traces(10, columns=("contrast", "contrast_sigma", "layer_core"), indices=[4, 2])
    assert some.index.tolist() == [4, 2] and whole.index.tolist() == list(range(PARTICLES))
    np.testing.assert_array_equal(some.contrast, whole.contrast[:, [4, 2]])
    np.testing.assert_array_equal(some.contrast_sigma, whole.contrast_sigma[:, [4, 2]])
    np.testing.assert_array_equal(some.soc, whole.soc[:, [4, 2]])
    np.testing.assert_array_equal(some.soc_lo, whole.soc_lo[:, [4, 2]])
    np.testing.assert_array_equal(some.layers[:, :, 3], whole.layers[:, [4, 2], 3])
    assert np.isnan(some.layers[:, :, :3]).all()
    bare = run.traces(10, columns=("contrast",))
    np.testing.assert_array_equal(bare.soc, whole.soc)
    assert np.isnan(bare.contrast_sigma).all() and np.isnan(bare.soc_lo).all()
    assert run.traces(10, indices=[]).contrast.shape == (10, 0)


def test_damaged_chunks_are_counted(run_path, tmp_path):
    path = shutil.copy(run_path, tmp_path / "damaged.db")
    with sqlite3.connect(path) as db:
        db.execute("update chunk_columns set blob = x'00' where chunk_id = 2 and \"column\" = 'contrast'")
    db.close()
    run = RunData.load(path)
    found = run.traces(1000)
    assert found.corrupt_chunks == 1
    assert len(found.t_s) == 40 and not ((found.t_s > 0.195) & (found.t_s < 0.395)).any()
    assert run.traces(1000, columns=("layer_core",)).corrupt_chunks == 0
