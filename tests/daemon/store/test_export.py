from __future__ import annotations

import csv
import json
import math
import sqlite3
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet
import pytest

from daemon.errors import StoreError, StoreReason
from daemon.store import export
from daemon.store.export import export_run
from daemon.store.reader import RunReader
from daemon.tables import EXPORT_TABLES
from tests.daemon.store.helpers import (
    PARTICLES,
    WAIT_S,
    cell_row,
    damaged_copy,
    event,
    frames,
    open_run,
    particle_rows,
)

FRAMES = 60


@pytest.fixture(scope="module")
def run_path(tmp_path_factory):
    with open_run(tmp_path_factory.mktemp("export"), commit_interval_s=0.001) as (writer, path):
        writer.put_particles(particle_rows())
        knots = {"contrast_knots": [-0.01, 0.01], "soc_knots": [0.0, 1.0], "soc_sigma": 0.01}
        writer.put_calibrations([{"particle_id": 13, "kind": "monotone", **knots}])
        writer.put_events([event(0.1), event(0.3, None), event(0.5, 12, detail="no crack seen")])
        writer.put_cycles([
            {"particle_id": p, "cycle": 0, "half": "charge", "swing": 0.1, "onset_t_s": 0.2} for p in (11, 12, 13)
        ])  # fmt: skip
        writer.put_ensemble([{"t_s": 0.1 * i, "soc_mean": float("nan"), "active_fraction": 0.5} for i in range(6)])
        writer.put_cell_samples([cell_row(0.1 * i) for i in range(5)])
        writer.put_cell_samples([cell_row(0.5, cycle=-1, step=-1, step_kind="off", current_ma=-1.5)])
        for i in range(3):
            writer.put_chunk(*frames(20 * i, 20)).result(WAIT_S)
    return path


def load(path):
    if path.suffix == ".parquet":
        return pyarrow.parquet.read_table(path)
    if path.suffix == ".arrow":
        return pyarrow.ipc.open_file(path.read_bytes()).read_all()
    return pyarrow.csv.read_csv(path)


@pytest.mark.parametrize("format", ["parquet", "csv", "arrow"])
def test_tables_and_columns_are_exactly_the_contract(run_path, tmp_path, format):
    written = export_run(run_path, tmp_path / "out", format=format)
    assert list(written) == list(EXPORT_TABLES)
    assert sorted(each.name for each in (tmp_path / "out").iterdir()) == sorted(f"{n}.{format}" for n in EXPORT_TABLES)
    for name, columns in EXPORT_TABLES.items():
        assert tuple(load(written[name]).column_names) == columns
        if format == "csv":
            assert written[name].read_text().splitlines()[0] == ",".join(columns)


def test_the_formats_agree(run_path, tmp_path):
    tables = {format: {name: load(path) for name, path in export_run(run_path, tmp_path, format=format).items()}
              for format in ("parquet", "csv", "arrow")}  # fmt: skip
    for name in EXPORT_TABLES:
        parquet = tables["parquet"][name]
        assert parquet.equals(tables["arrow"][name]) or same(parquet, tables["arrow"][name])
        assert same(parquet, tables["csv"][name])


def same(left, right):
    """Equal values, whatever the types; null, NaN and an empty field are all unknown."""
    for name in left.column_names:
        for a, b in zip(left[name].to_pylist(), right[name].to_pylist(), strict=True):
            if unknown(a) and unknown(b):
                continue
            if isinstance(a, str):
                assert a == b
            else:
                assert math.isclose(a, b, rel_tol=1e-6)
    return True


def unknown(value):
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


@pytest.mark.parametrize("format", ["parquet", "csv", "arrow"])
def test_events_say_what_their_numbers_do_not(run_path, tmp_path, format):
    table = load(export_run(run_path, tmp_path, tables=["events"], format=format)["events"])
    assert [value or "" for value in table["detail"].to_pylist()] == ["", "", "no crack seen"]


def test_types(run_path, tmp_path):
    written = export_run(run_path, tmp_path)
    types = {name: dict(zip(t.names, t.types, strict=True)) for name, p in written.items()
             if (t := pyarrow.parquet.read_schema(p))}  # fmt: skip
    assert types["traces"]["contrast"] == pa.float32()
    assert types["traces"]["t_s"] == types["echem"]["Test Time / s"] == pa.float64()
    assert types["traces"]["particle_id"] == types["events"]["particle_id"] == types["frames"]["flags"] == pa.int64()
    assert types["particles"]["state"] == types["cycles"]["half"] == pa.string()
    told = json.loads(pyarrow.parquet.read_schema(written["traces"]).metadata[b"photometry_run"])
    assert told["run_id"] == "r1"


def test_traces_are_what_the_reader_gives_frame_by_frame(run_path, tmp_path):
    table = load(export_run(run_path, tmp_path, tables=["traces"])["traces"])
    with RunReader(run_path) as run:
        frame, values = run.particle_columns(["contrast", "flags"])
    assert len(table) == FRAMES * PARTICLES
    assert table["particle_id"].to_pylist() == list(range(11, 11 + PARTICLES)) * FRAMES
    assert np.array_equal(table["frame"].to_numpy(), np.repeat(frame["frame"], PARTICLES))
    assert np.array_equal(table["contrast"].to_numpy(), values["contrast"].ravel(), equal_nan=True)
    assert np.array_equal(table["flags"].to_numpy(), values["flags"].ravel())
    soc = table["soc"].to_numpy().reshape(FRAMES, PARTICLES)
    expected = 0.5 + values["contrast"][:, 2] / 0.02
    assert np.allclose(soc[:, 2], expected, atol=1e-5, equal_nan=True)
    assert np.isnan(np.delete(soc, 2, axis=1)).all()


def test_the_cell_record_is_in_battery_data_format(run_path, tmp_path):
    rows = load(export_run(run_path, tmp_path, tables=["echem"])["echem"]).to_pylist()
    assert rows[0] == {"Test Time / s": 0.0, "Voltage / V": 3.7, "Current / A": 0.0005, "Cycle Count / 1": 0,
                       "Step Index / 1": 1}  # fmt: skip
    assert rows[-1]["Current / A"] == -0.0015
    assert (rows[-1]["Cycle Count / 1"], rows[-1]["Step Index / 1"]) == (None, None)


def test_unknown_is_an_empty_field(run_path, tmp_path):
    written = export_run(run_path, tmp_path, format="csv")
    for name, path in written.items():
        text = path.read_text().lower()
        assert "nan" not in text and "null" not in text and "none" not in text.replace('"none"', ""), name
    with written["particles"].open(newline="") as file:
        row = next(csv.DictReader(file))
    assert (row["parent_id"], row["equivalent_diameter_um"], row["calibration"]) == ("", "", "none")


def test_a_selection_of_particles_and_time(run_path, tmp_path):
    written = export_run(run_path, tmp_path, particles=[13, 11], from_s=0.15, to_s=0.3)
    rows = {name: load(path).to_pylist() for name, path in written.items()}
    assert {row["particle_id"] for row in rows["traces"]} == {11, 13}
    assert len(rows["traces"]) == 2 * 16 and len(rows["frames"]) == 16
    assert any(not math.isnan(row["soc"]) for row in rows["traces"] if row["particle_id"] == 13)
    assert [row["particle_id"] for row in rows["particles"]] == [11, 13]
    assert [row["particle_id"] for row in rows["events"]] == [None]
    assert [row["particle_id"] for row in rows["cycles"]] == [11, 13]
    assert len(rows["ensemble"]) == len(rows["echem"]) == 1


def test_many_small_pieces_become_large_groups(run_path, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "ROWS_PER_GROUP", 2 * 20 * PARTICLES)
    path = export_run(run_path, tmp_path, tables=["traces"])["traces"]
    groups = pyarrow.parquet.ParquetFile(path)
    assert [groups.metadata.row_group(i).num_rows for i in range(groups.num_row_groups)] == [280, 140]
    groups.close()


def test_an_empty_run_gives_empty_tables(tmp_path):
    with open_run(tmp_path) as (_, path):
        pass
    for format in ("parquet", "csv", "arrow"):
        for name, file in export_run(path, tmp_path / "out", format=format).items():
            if format != "csv":
                assert (len(load(file)), tuple(load(file).column_names)) == (0, EXPORT_TABLES[name])
            else:
                assert file.read_text() == ",".join(EXPORT_TABLES[name]) + "\n"


def test_damaged_chunks_are_left_out_with_a_warning(run_path, tmp_path, caplog):
    target = damaged_copy(run_path, tmp_path / "damaged.db")
    table = load(export_run(target, tmp_path, tables=["traces"])["traces"])
    assert sorted(set(table["frame"].to_pylist())) == [*range(20), *range(40, 60)]
    assert "1 damaged chunks" in caplog.text


def test_what_is_left_out_is_counted(run_path, tmp_path):
    whole = export_run(run_path, tmp_path / "whole")
    assert (whole.corrupt_chunks, whole.damaged_rows) == (0, {})
    target = damaged_copy(run_path, tmp_path / "damaged.db")
    with sqlite3.connect(target) as conn:
        conn.execute("update cycles set swing = 0.2 where particle_id = 12")
    conn.close()
    written = export_run(target, tmp_path / "out")
    assert (written.corrupt_chunks, written.damaged_rows) == (1, {"cycles": 1})
    assert len(load(written["cycles"])) == 2 and len(load(written["frames"])) == FRAMES - 20


def test_progress_rises_to_one(run_path, tmp_path):
    seen = []
    export_run(run_path, tmp_path, progress=seen.append)
    assert seen == sorted(seen) and seen[-1] == 1.0 and len(seen) > len(EXPORT_TABLES)


@pytest.mark.parametrize("progress", [None, lambda share: None])
def test_the_list_of_chunks_is_read_as_often_for_any_number_of_them(run_path, tmp_path, monkeypatch, progress):
    reads, read = [], RunReader._chunk_rows
    monkeypatch.setattr(RunReader, "_chunk_rows", lambda *asked: reads.append(asked) or read(*asked))
    export_run(run_path, tmp_path, tables=["frames", "traces"], progress=progress)
    assert len(reads) == (2 if progress is None else 4)


def test_a_failure_leaves_the_older_export_and_no_litter(run_path, tmp_path, monkeypatch):
    export_run(run_path, tmp_path)
    before = (tmp_path / "traces.parquet").read_bytes()

    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export.os, "fsync", full)
    with pytest.raises(StoreError) as caught:
        export_run(run_path, tmp_path, tables=["traces"])
    assert caught.value.reason is StoreReason.DISK_FULL
    assert (tmp_path / "traces.parquet").read_bytes() == before
    assert not [each for each in tmp_path.iterdir() if "partial" in each.name]


def test_wrong_requests(run_path, tmp_path):
    with pytest.raises(ValueError, match="tracks"):
        export_run(run_path, tmp_path, tables=["tracks"])
    with pytest.raises(StoreError) as caught:
        export_run(run_path, tmp_path, particles=[11, 4711])
    assert caught.value.reason is StoreReason.NO_PARTICLE and "4711" in caught.value.detail
    for selection in ({"from_s": math.nan}, {"to_s": math.nan}):
        with pytest.raises(StoreError) as caught:
            export_run(run_path, tmp_path / "nothing", **selection)
        assert caught.value.reason is StoreReason.BAD_RANGE
        assert not (tmp_path / "nothing").exists()
    (tmp_path / "file").touch()
    with pytest.raises(StoreError) as caught:
        export_run(run_path, tmp_path / "file" / "out")
    assert caught.value.reason is StoreReason.NOT_WRITABLE


def test_the_writer_and_the_readers_do_not_load_pyarrow():
    code = "import sys, daemon.store.writer, daemon.store.reader, daemon.store.export; print('pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_a_run_whose_particles_grew_has_nothing_where_they_were_not_there(tmp_path):
    with open_run(tmp_path) as (writer, path):
        writer.put_particles(particle_rows())
        writer.put_chunk(*frames(0, 10))
        writer.put_particles(particle_rows(PARTICLES + 1)[PARTICLES:])
        writer.put_chunk(*frames(10, 10, PARTICLES + 1), mask_version=2)
    traces = load(export_run(path, tmp_path / "out")["traces"]).to_pydict()
    assert len(load(tmp_path / "out" / "particles.parquet")) == PARTICLES + 1
    frame = np.array(traces["frame"])
    assert (np.bincount(frame) == PARTICLES + 1).all()
    late = np.array(traces["particle_id"]) == 11 + PARTICLES
    sigma = np.array(traces["contrast_sigma"], float)
    assert np.isnan(sigma[late & (frame < 10)]).all() and np.isfinite(sigma[late & (frame >= 10)]).all()
    assert np.isfinite(sigma[~late]).all()
    one = export_run(path, tmp_path / "one", particles=[11 + PARTICLES])
    assert set(load(one["traces"])["particle_id"].to_pylist()) == {11 + PARTICLES}
