"""Axial bins and axes in a run's file, and what older files say."""

import sqlite3
from contextlib import closing

import numpy as np
import pytest

from daemon.photometry.axial import WHYS
from daemon.store.axial import axial_blocks, insert_axial
from daemon.store.axial_traces import COLUMNS, AxialTraces
from daemon.store.export import export_run
from daemon.store.reader import RunReader
from daemon.store.schema import RUN, open_writing
from tests.daemon.photometry.test_axial import CURVE, row
from tests.daemon.store.helpers import PARTICLES, WAIT_S, frames, open_run, particle_rows, without_proof

BLOCKS, SIGMA = 4, 1e-3


def blocks(first: int, particles: int = PARTICLES, count: int = BLOCKS) -> dict[str, np.ndarray]:
    """A second of blocks from block `first` on; the first particle is round."""
    rng = np.random.default_rng(first)
    bins = (0.125 + rng.normal(0, SIGMA / 3, (count, particles, 8))).astype("f4")
    bins[:, 0] = np.nan
    sigma = np.full((count, particles), SIGMA, "f4")
    sigma[:, 0] = np.nan
    drift = np.abs(rng.normal(0, 1e-2, (count, 5))) * [1.0, 1.0, 1e-2, 0.0, 1e-2]
    return {
        "t_s": 0.25 * (first + np.arange(count)) + 0.12, "drift": drift, "bins": bins,
        "sigma": sigma,
    }  # fmt: skip


def axis(particle_id: int, why: str = "") -> dict:
    """A row of `axes`."""
    known = {"axis_deg": 0.0, "length_px": 40.0, "further": row()["further"]}
    none = {"axis_deg": None, "length_px": None, "further": None}
    return {
        "particle_id": particle_id, "axial_unknown_why": why, "shift_unknown_why": why, **(none if why else known)
    }  # fmt: skip


@pytest.fixture
def path(tmp_path):
    with open_run(tmp_path) as (writer, path):
        writer.put_particles(particle_rows())
        writer.put_axes([axis(11, "round"), axis(12), axis(13, "no_calibration")])
        writer.put_calibrations([{"particle_id": 12, **CURVE}])
        for first in (0, 4, 8):
            writer.put_axial([blocks(first)])
        writer.put_axial([blocks(12, PARTICLES + 1)])
        for first in range(0, 400, 80):
            writer.put_chunk(*frames(first, 80), wait_s=WAIT_S)
    return path


def test_blocks_come_back_within_a_sixteenth_of_their_noise(path):
    with RunReader(path) as reader:
        got = reader.axial()
    want = [blocks(first) for first in (0, 4, 8)]
    np.testing.assert_array_equal(got.t_s[:12], np.concatenate([each["t_s"] for each in want]))
    np.testing.assert_allclose(got.drift[:12], np.concatenate([each["drift"] for each in want]), rtol=1e-6)
    bins = np.concatenate([each["bins"] for each in want])
    assert np.abs(got.bins[:12, 1:PARTICLES] - bins[:, 1:]).max() <= SIGMA / np.sqrt(8) / 32
    assert np.isnan(got.bins[:, 0]).all()
    np.testing.assert_allclose(got.sigma[:12, 1:PARTICLES], SIGMA, rtol=2e-3)
    assert np.isnan(got.bins[:12, PARTICLES]).all()  # came later
    assert np.isfinite(got.bins[12:, PARTICLES]).all()


def test_a_range_has_a_row_beyond_either_end(path):
    with RunReader(path) as reader:
        assert reader.axial(1.2, 1.8, [1]).t_s == pytest.approx(0.25 * np.arange(4, 12) + 0.12)
        assert reader.axial(1.2, 1.8, [1, 99]).bins.shape == (8, 2, 8)
        assert len(reader.axial(0.5, 0.6).t_s) == 8


def test_a_damaged_row_is_left_out(path):
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(
            "update axial set bins = cast(substr(bins, 1, length(bins) - 1) || x'00' as blob) where block_id = 2"
        )
    with RunReader(path) as reader:
        assert len(reader.axial().t_s) == 12


def test_bytes_a_value(path):
    """Long runs of blocks with the noise of real ones."""
    with closing(sqlite3.connect(path)) as db, db:
        size = db.execute("select sum(length(bins)) from axial where block_id <= 3").fetchone()[0]
    assert size / (3 * BLOCKS * (PARTICLES - 1) * 8) < 2.5  # 4 as they are


def test_traces_and_reasons_reach_reader_and_export(path, tmp_path):
    export_run(path, tmp_path / "out", format="csv", tables=("particles", "traces"))
    head, *rows = (tmp_path / "out" / "particles.csv").read_text().splitlines()
    names = head.split(",")
    whys = [line.split(",")[names.index("axial_unknown_why")].strip('"') for line in rows]
    assert whys[:4] == ["round", "", "no_calibration", ""]
    assert set(whys) <= {"", *WHYS}
    names = (tmp_path / "out" / "traces.csv").read_text().splitlines()[0].split(",")
    assert set(COLUMNS) <= set(names)
    with RunReader(path) as reader:
        assert [each["axial_unknown_why"] for each in reader.particles()][:4] == ["round", "", "no_calibration", None]
        frame, stored = reader.particle_columns(
            ["contrast", "contrast_sigma", "centroid_y_px", "centroid_x_px"], [0, 1, 3]
        )
        found = AxialTraces(reader, np.array([11, 12, 14]), np.array([0, 1, 3]), {1: CURVE}).of(frame["t_s"], stored)
    for name in COLUMNS[:4]:
        assert np.isnan(found[name][:, [0, 2]]).all(), name
    assert np.isfinite(found["axial_gradient"][:, 1]).all()
    assert np.isnan(found["centroid_shift_nm"]).all()  # nobody told a pixel's size
    known = np.isfinite(stored["contrast"][:, 1])
    np.testing.assert_allclose(
        found["dipole_px"][known, 1], found["centroid_shift_px"][known, 1] * (1 + stored["contrast"][known, 1]), 1e-5
    )


def test_gaps_are_not_bridged(path):
    with RunReader(path) as reader:
        traces = AxialTraces(reader, np.array([12]), np.array([1]), {0: CURVE})
        late = np.array([3.9, 100.0])
        stored = {name: np.full((2, 1), 1e-3) for name in
                  ("contrast", "contrast_sigma", "centroid_y_px", "centroid_x_px")}  # fmt: skip
        found = traces.of(late, stored)
    assert np.isfinite(found["axial_gradient"][0])
    assert np.isnan(found["axial_gradient"][1])
    assert np.isnan(found["centroid_shift_px"][1])


def test_a_file_from_before_opens_and_knows_nothing(path):
    without_proof(path)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("drop table axes")
        db.execute("drop table axial")
        db.execute("delete from _sqlite_migrations where name = '0024_axial'")
    with RunReader(path) as reader:
        assert reader.axes() == []
        assert reader.axial(indices=[0, 1]).bins.shape == (0, 2, 8)
        assert reader.particles()[0]["axial_unknown_why"] is None
        traces = AxialTraces(reader, np.array([11]), np.array([0]), {0: CURVE})
        none = traces.of(np.arange(3.0), {"contrast": np.zeros((3, 1))})
    assert all(np.isnan(none[name]).all() for name in COLUMNS)
    open_writing(path, RUN).close()  # opened for writing, the tables come
    with RunReader(path) as reader:
        assert len(reader.axial().t_s) == 0
    with closing(sqlite3.connect(path)) as db, db:
        assert db.execute("select count(*) from axes").fetchone() == (0,)


def test_blocks_of_no_particles():
    db = sqlite3.connect(":memory:")
    columns = "block_id integer primary key, t0_s, t1_s, blocks, particles, t_s, drift, sigma, bins, crc32"
    db.execute(f"create table axial ({columns})")
    insert_axial(db, [blocks(0, 1) | {"bins": np.empty((4, 0, 8), "f4"), "sigma": np.empty((4, 0), "f4")}])
    cursor = db.execute("select * from axial")
    names = [each[0] for each in cursor.description]
    got = axial_blocks([dict(zip(names, each, strict=True)) for each in cursor], None)
    db.close()
    assert got.bins.shape == (4, 0, 8)
