"""The row tables: registered once, read, paged and exported alike."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from daemon.engine.measures import Clip
from daemon.errors import StoreError, StoreReason
from daemon.store.export import export_run
from daemon.store.reader import RunReader
from daemon.tables import EXPORT_TABLES, INT_COLUMNS, JSON_COLUMNS, ROW_TABLES, SINGLE_COLUMNS, TEXT_COLUMNS
from tests.daemon.store.helpers import open_run, particle_rows, prove, without_proof

SERIES = {"t_s": [0.0, 1.0], "front_px": [1.0, 2.0], "front_sigma_px": [0.1, 0.1], "fraction": [0.2, 0.8]}
HALVES = [(cycle, half) for cycle in range(4) for half in ("charge", "discharge")]
PLACES = [(particle, cycle, half) for cycle, half in HALVES for particle in (11, 12, 13)]
CURVE = {"particle_id": 12, "kind": "monotone", "contrast_knots": [0.0, 0.5], "soc_knots": [0.0, 1.0],
         "soc_sigma": 0.01, "soc_sigma_knots": [0.01, 0.02], "layers": {"core": [1.0]}}  # fmt: skip


@pytest.fixture(scope="module")
def run_path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    with open_run(folder, commit_interval_s=0.001) as (writer, path):
        writer.put_particles(particle_rows())
        rows = [{"particle_id": p, "cycle": c, "half": h} for p, c, h in PLACES]
        writer.put_cycles([row | {"onset_t_s": 10.0 * row["cycle"], "swing": 0.1} for row in rows])
        writer.put_rates([row | {"step": 1, "t_s": 10.0 * row["cycle"], "rate_per_h": 2.0} for row in rows])
        writer.put_fronts([row | {"mode": "core", "onset_t_s": 10.0 * row["cycle"]} | SERIES for row in rows])
        writer.put_health([
            {"particle_id": p, "cycle": c, "t_s": 10.0 * c, "warned": 1, "lead_cycles": float("nan")}
            for p, c, h in PLACES if h == "charge"
        ])  # fmt: skip
        clip = Clip(1, 100, 8, 9, np.array([20.0, 20.5]), np.zeros((2, 6, 5), np.uint16))
        writer.put_clips([(11, clip), (13, clip)])
        writer.put_calibrations([CURVE, {"particle_id": 11, "kind": "folded"}])
    return path


def rows_of(run_path, tmp_path, name, **selection):
    table = pyarrow.parquet.read_table(export_run(run_path, tmp_path, tables=[name], **selection)[name])
    assert tuple(table.column_names) == ROW_TABLES[name].columns
    return table.to_pylist()


@pytest.mark.parametrize("name", ROW_TABLES)
def test_what_is_read_is_what_is_exported(run_path, tmp_path, name):
    with RunReader(run_path) as run:
        read = run.page(name).rows
    exported = rows_of(run_path, tmp_path, name)
    assert len(read) == len(exported) > 0
    assert read == sorted(read, key=lambda row: tuple(row[each] for each in ROW_TABLES[name].order))
    places = [each for each in ("clip_id", "particle_id", "cycle", "half") if each in ROW_TABLES[name].columns]
    place_of = lambda row: tuple(row[each] for each in places)  # noqa: E731
    for one, other in zip(sorted(read, key=place_of), sorted(exported, key=place_of), strict=True):
        for column, value in one.items():
            told = other[column]
            if column in JSON_COLUMNS and told is not None:
                told = json.loads(told)
            assert told == value or (value is None and told != told), column


@pytest.mark.parametrize(
    ("name", "count"),
    [("cycles", 6), ("rates", 6), ("fronts", 6), ("health", 3), ("clips", 2), ("calibrations", 2)],
)
def test_exports_select_by_time(run_path, tmp_path, name, count):
    """Curves belong to no time."""
    assert len(rows_of(run_path, tmp_path, name, from_s=15.0, to_s=25.0)) == count
    if ROW_TABLES[name].when is not None:
        assert rows_of(run_path, tmp_path, name, from_s=1000.0) == []


@pytest.mark.parametrize("name", ROW_TABLES)
def test_exports_select_by_particle(run_path, tmp_path, name):
    assert {row["particle_id"] for row in rows_of(run_path, tmp_path, name, particles=[11])} == {11}


@pytest.mark.parametrize("name", ["cycles", "rates", "fronts"])
def test_pages_hold_every_row_once_and_filters_hold_in_them(run_path, name):
    with RunReader(run_path) as run:
        pages, after = [], 0
        while after is not None:
            page = run.page(name, after, 7)
            pages.append(len(page.rows))
            after = page.next_after
        assert pages == [7, 7, 7, 3]
        some = run.page(name, limit=2, particle_id=12, half="discharge")
        rest = run.page(name, some.next_after, 100, particle_id=12, half="discharge")
        assert rest.next_after is None
        places = [(row["particle_id"], row["cycle"], row["half"]) for row in some.rows + rest.rows]
        assert places == [(12, cycle, "discharge") for cycle in range(4)]


def test_a_row_measured_anew_comes_behind_all_others(tmp_path):
    with open_run(tmp_path, commit_interval_s=0.001) as (writer, path):
        writer.put_particles(particle_rows())
        writer.put_health([{"particle_id": p, "cycle": 0} for p in (11, 12, 13)]).result(5)
        with RunReader(path) as run:
            first = run.page("health", limit=3)
            for particle in (13, 11):  # the newest row, and an older one
                writer.put_health([{"particle_id": particle, "cycle": 0, "loss": 0.5}]).result(5)
                further = run.page("health", first.next_after, 3)
                assert particle in [row["particle_id"] for row in further.rows if row["loss"] == 0.5]
            assert len(run.health()) == 3


@pytest.mark.parametrize("name", [name for name in ROW_TABLES if name != "calibrations"])
def test_a_file_from_before_the_table_has_no_rows_of_it(run_path, tmp_path, name):
    older = tmp_path / "older.db"
    shutil.copy(run_path, older)
    without_proof(older)
    with closing(sqlite3.connect(older)) as db, db:
        db.execute(f"drop table {name}")
    with RunReader(older) as run:
        assert (run.page(name).rows, run.page(name).next_after) == ([], None)
    assert rows_of(older, tmp_path, name) == []


def test_a_file_from_before_a_column_does_not_know_it(run_path, tmp_path):
    older = tmp_path / "older.db"
    shutil.copy(run_path, older)
    without_proof(older)
    with closing(sqlite3.connect(older)) as db, db:
        db.execute("alter table cycles drop column asymmetry")
    with RunReader(older) as run:
        assert {row["asymmetry"] for row in run.cycles()} == {None}
    assert all(np.isnan(row["asymmetry"]) for row in rows_of(older, tmp_path, "cycles"))


def test_a_curve_that_makes_no_sense_is_said_so(run_path, tmp_path):
    broken = tmp_path / "broken.db"
    shutil.copy(run_path, broken)
    with closing(sqlite3.connect(broken)) as db, db:
        db.execute("update calibrations set soc_knots = '[0.0,' where particle_id = 12")
    prove(broken, "calibrations")
    for read in (lambda run: run.calibrations(), lambda run: run.page("calibrations"),
                 lambda run: list(run.iter_rows("calibrations"))):  # fmt: skip
        with RunReader(broken) as run, pytest.raises(StoreError) as caught:
            read(run)
        assert caught.value.reason is StoreReason.CORRUPT and "calibrations" in caught.value.detail


def test_series_and_pixels_are_not_read_with_the_rows(run_path):
    with RunReader(run_path) as run:
        for name in ("fronts", "clips"):
            (page,) = run.iter_rows(name, columns=EXPORT_TABLES[name])
            assert set(page[0]) == set(EXPORT_TABLES[name])


def test_every_table_is_exported_with_types_that_fit(run_path, tmp_path):
    assert set(ROW_TABLES) <= set(EXPORT_TABLES)
    assert not INT_COLUMNS & (TEXT_COLUMNS | JSON_COLUMNS | SINGLE_COLUMNS)
    for name in ROW_TABLES:
        schema = pyarrow.parquet.read_schema(export_run(run_path, tmp_path, tables=[name])[name])
        assert schema.field("particle_id").type == pa.int64()
        for column in set(schema.names) & (TEXT_COLUMNS | JSON_COLUMNS):
            assert schema.field(column).type == pa.string()
