from __future__ import annotations

import sqlite3
import threading
import tracemalloc
from contextlib import closing

import numpy as np
import pytest

from daemon.errors import StoreError, StoreReason
from daemon.mask_edits import MaskVersion
from daemon.store import chunks
from daemon.store.check import check_file
from daemon.store.codec import checksum
from daemon.store.reader import CatalogueReader, RunReader
from daemon.store.schema import RUN, open_writing
from daemon.tables import CHUNK_FRAME_COLUMNS, CHUNK_PARTICLE_COLUMNS
from tests.daemon.store.helpers import PARTICLES, WAIT_S, event, frames, open_run, particle_rows, prove, without_proof


@pytest.fixture
def run_path(tmp_path):
    """Five chunks of twenty frames."""
    with open_run(tmp_path, commit_interval_s=0.001) as (writer, path):
        writer.put_particles(particle_rows())
        writer.put_masks(MaskVersion(1, 0, ""), np.ones((4, 5), np.int32), np.ones((4, 5), np.float32))
        for i in range(5):
            writer.put_chunk(*frames(20 * i, 20)).result(WAIT_S)
        writer.put_events([event(0.5)]).result(WAIT_S)
    return path


def damage(path, sql, *parameters):
    with sqlite3.connect(path) as conn:
        assert conn.execute(sql, parameters).rowcount == 1
    conn.close()


def test_ranges_are_inclusive_and_cross_chunks(run_path):
    with RunReader(run_path) as run:
        assert run.time_range() == (0.0, 0.99)
        assert run.frames(0.15, 0.25)["frame"].tolist() == list(range(15, 26))
        assert run.frames(None, 0.0)["frame"].tolist() == [0]
        assert run.frames(0.99)["frame"].tolist() == [99]
        assert run.frames(5.0)["frame"].tolist() == []
        assert run.corrupt_chunks == 0


def test_columns_and_particles_are_chosen(run_path):
    with RunReader(run_path) as run:
        every_frame, every = run.particle_columns(list(CHUNK_PARTICLE_COLUMNS))
        some_frames, some = run.particle_columns(["contrast", "flags"], [4, 1], 0.3, 0.5)
    assert set(every_frame) == set(CHUNK_FRAME_COLUMNS)
    for name, dtype in CHUNK_PARTICLE_COLUMNS.items():
        assert (every[name].shape, every[name].dtype) == ((100, PARTICLES), np.dtype(dtype))
    assert set(some) == {"contrast", "flags"}
    assert np.array_equal(some["contrast"], every["contrast"][30:51][:, [4, 1]], equal_nan=True)
    assert np.array_equal(some_frames["t_s"], every_frame["t_s"][30:51])


def test_nothing_in_range_has_the_shape_of_nothing(run_path):
    with RunReader(run_path) as run:
        frame, values = run.particle_columns(["contrast"], [1, 2], 7.0, 8.0)
    assert frame["frame"].shape == (0,)
    assert values["contrast"].shape == (0, 2)


def test_chunks_come_one_at_a_time(run_path):
    with RunReader(run_path) as run:
        sizes = [(chunk.chunk_id, len(chunk.frame_columns["t_s"])) for chunk in run.iter_chunks(0.1, 0.5, ("flags",))]
    assert sizes == [(1, 10), (2, 20), (3, 11)]


@pytest.mark.parametrize(
    "sql",
    [
        "update chunk_columns set blob = 'x' where chunk_id = 3 and per = 'particle' and \"column\" = 'contrast'",
        "update chunk_columns set codec = 'raw' where chunk_id = 3 and per = 'particle' and \"column\" = 'contrast'",
        "update chunk_columns set blob = null where chunk_id = 3 and per = 'frame' and \"column\" = 't_s'",
        "delete from chunk_columns where chunk_id = 3 and per = 'frame' and \"column\" = 'flags'",
        "update chunks set frames = 19 where chunk_id = 3",
        "update chunks set t0_s = 50, t1_s = 60 where chunk_id = 3",
        "update chunks set t0_s = null, t1_s = null where chunk_id = 3",
        "update chunks set t1_s = 50 where chunk_id = 3",
        "delete from chunks where chunk_id = 3",
    ],
)
def test_a_damaged_chunk_is_left_out_and_counted(run_path, sql):
    damage(run_path, sql)
    with RunReader(run_path) as run:
        for _ in range(2):
            numbers = run.particle_columns(["contrast"])[0]["frame"].tolist()
            assert numbers == [*range(40), *range(60, 100)]
        assert run.corrupt_chunks == 1
        assert run.corrupt_chunk_ids == {3}


@pytest.mark.parametrize("sql", ["delete from chunks where chunk_id > 3", "delete from chunks"])
def test_chunks_missing_at_the_end_are_counted(run_path, sql):
    with sqlite3.connect(run_path) as conn:
        lost = conn.execute(sql).rowcount
    conn.close()
    with RunReader(run_path) as run:
        assert len(run.frames()["frame"]) == 100 - 20 * lost
        assert run.corrupt_chunks == lost


@pytest.mark.parametrize("at_once", [1, 2, 5000])
def test_what_chunks_there_are_is_told_from_the_sound_ones(run_path, monkeypatch, at_once):
    monkeypatch.setattr(chunks, "ROWS_AT_ONCE", at_once)
    damage(run_path, "delete from chunks where chunk_id = 2")
    damage(run_path, "update chunks set frames = 10000 where chunk_id = 4")
    damage(run_path, "update chunks set t1_s = 50 where chunk_id = 5")
    with RunReader(run_path) as run:
        assert (run.last_chunk_id(), run.frame_count(), run.time_range()) == (3, 40, (0.0, 0.59))
        assert run.corrupt_chunk_ids == {2, 4, 5}


def test_looking_over_a_long_run_takes_little_memory(tmp_path):
    path, count = tmp_path / "long.db", 20_000
    with closing(open_writing(path, RUN, create=True)) as db, db.atomic():
        fields = ((n, 100 * n, 100, 300, float(n), n + 0.99) for n in range(1, count + 1))
        db.conn.executemany(
            "insert into chunks values (?, ?, ?, ?, ?, ?, ?)", ((*each, checksum(b"", *each)) for each in fields)
        )
    with RunReader(path) as run:
        run.metadata()
        tracemalloc.start()
        try:
            assert (run.frame_count(), run.last_chunk_id(), run.time_range()) == (
                100 * count,
                count,
                (1.0, count + 0.99),
            )
            peak_bytes = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    print(peak_bytes / count)
    assert peak_bytes < 250 * count


def test_columns_of_two_chunks_cannot_change_places(run_path):
    with sqlite3.connect(run_path) as conn:
        for old, new in ((2, 99), (4, 2), (99, 4)):
            conn.execute("update chunk_columns set chunk_id = ? where chunk_id = ?", (new, old))
    conn.close()
    with RunReader(run_path) as run:
        assert run.frames()["frame"].tolist() == [*range(20), *range(40, 60), *range(80, 100)]
        assert run.corrupt_chunk_ids == {2, 4}


def test_damage_outside_what_is_asked_for_does_not_matter(run_path):
    damage(run_path, "delete from chunk_columns where chunk_id = 3 and \"column\" = 'layer_core'")
    with RunReader(run_path) as run:
        assert len(run.particle_columns(["contrast"])[0]["frame"]) == 100
        assert len(run.particle_columns(["layer_core"])[0]["frame"]) == 80


@pytest.mark.parametrize("what", ["labels", "reference"])
def test_a_damaged_image_is_refused(run_path, what):
    damage(run_path, f"update masks set {what} = substr({what}, 1, length({what}) - 1) || x'00'")
    with RunReader(run_path) as run, pytest.raises(StoreError) as caught:
        getattr(run, what)()
    assert caught.value.reason is StoreReason.CORRUPT
    assert what in caught.value.detail


@pytest.mark.parametrize(
    ("sql", "call"),
    [
        ("update events set kind = 'no such kind'", RunReader.events),
        ("update metadata set value = '{' where key = 'name'", RunReader.metadata),
        ("update particles set layer_sigma_ratio = 'x' where particle_id = 11", RunReader.particles),
    ],
)
def test_rows_that_make_no_sense_are_corrupt(run_path, sql, call):
    damage(run_path, sql)
    with RunReader(run_path) as run:
        assert call(run) is not None
        assert run.damaged_rows == 1
    prove(run_path, sql.split()[1])
    with RunReader(run_path) as run, pytest.raises(StoreError) as caught:
        call(run)
    assert caught.value.reason is StoreReason.CORRUPT


def test_labels_of_a_version_that_is_not_there(run_path):
    with RunReader(run_path) as run:
        assert run.labels().dtype == np.int32
        assert run.labels(7) is None
        assert run.reference(7) is None


def test_pages_of_rows(run_path):
    with RunReader(run_path) as run:
        pages = list(run.iter_rows("particles", page=3))
        assert [len(page) for page in pages] == [3, 3, 1]
        assert [row["particle_id"] for page in pages for row in page] == list(range(11, 18))
        assert list(run.iter_rows("cycles")) == []


def test_usable_from_another_thread_and_after_close(run_path):
    run = RunReader(run_path)
    counts = []
    thread = threading.Thread(target=lambda: counts.append(len(run.frames()["frame"])))
    thread.start()
    thread.join()
    run.close()
    run.close()
    counts.append(len(run.frames()["frame"]))
    run.close()
    assert counts == [100, 100]


def test_reading_beside_the_writer_sees_whole_commits(tmp_path):
    with open_run(tmp_path, commit_interval_s=0.001) as (writer, path), RunReader(path) as run:
        for i in range(10):
            writer.put_chunk(*frames(10 * i, 10)).result(WAIT_S)
            assert len(run.frames()["frame"]) == 10 * (i + 1)


def test_files_of_other_kinds_are_told_apart(run_path, tmp_path):
    for reader, path in ((RunReader, tmp_path / "instrument.db"), (CatalogueReader, run_path)):
        with pytest.raises(StoreError) as caught:
            reader(path).open()
        assert caught.value.reason is StoreReason.NOT_A_RUN


@pytest.fixture
def grown_path(tmp_path):
    """A run whose masks were edited: one particle more from frame 40 on, another from 60; 55 on only removes."""
    versions = [(1, 0, PARTICLES), (2, 40, PARTICLES + 1), (3, 55, PARTICLES + 1), (4, 60, PARTICLES + 2)]
    with open_run(tmp_path, commit_interval_s=5.0) as (writer, path):
        for (version, first, count), last in zip(versions, (40, 55, 60, 80), strict=True):
            known = 0 if version == 1 else versions[version - 2][2]
            writer.put_particles(particle_rows(count)[known:])
            edits = [{"action": "remove", "particle_id": version}]
            about = MaskVersion(version, first, f"2026-01-0{version}T00:00:00+00:00", "me", edits, count - version + 1)
            image = np.full((4, 5), 9.5, np.float32) if version == 1 else None
            writer.put_masks(about, np.full((4, 5), version, np.int32), image)
            for start in range(first, last, 5):
                writer.put_chunk(*frames(start, 5, count), mask_version=version)
    return path


def test_earlier_frames_know_nothing_of_particles_that_came_later(grown_path):
    with RunReader(grown_path) as run:
        rows, values = run.particle_columns(["contrast_sigma", "flags"])
        _, one = run.particle_columns(["contrast_sigma"], [PARTICLES])
        ids = [row["particle_id"] for row in run.particles()]
    assert rows["frame"].tolist() == list(range(80))
    assert ids == list(range(11, 11 + PARTICLES + 2))
    known = np.isfinite(values["contrast_sigma"])
    assert known[:, :PARTICLES].all()
    assert known[:, PARTICLES].tolist() == [n >= 40 for n in range(80)]
    assert known[:, PARTICLES + 1].tolist() == [n >= 60 for n in range(80)]
    assert not values["flags"][:40, PARTICLES:].any()
    np.testing.assert_array_equal(one["contrast_sigma"][:, 0], values["contrast_sigma"][:, PARTICLES])


def test_a_chunk_holds_frames_of_one_version_of_the_masks(grown_path):
    with RunReader(grown_path) as run:
        starts = [int(chunk.frame_columns["frame"][0]) for chunk in run.iter_chunks(columns=())]
    assert {0, 40, 55, 60} <= set(starts)


def test_sql_alone_finds_the_version_of_a_chunk(grown_path):
    """As docs/store.md does it."""
    sql = "select first_frame, max(version) from chunks join masks on from_frame <= first_frame group by chunk_id"
    with sqlite3.connect(f"file:{grown_path}?mode=ro", uri=True) as conn:
        found = dict(conn.execute(sql).fetchall())
    conn.close()
    assert {first: found[first] for first in (0, 40, 55, 60)} == {0: 1, 40: 2, 55: 3, 60: 4}


def test_versions_of_the_masks_come_back(grown_path):
    with RunReader(grown_path) as run:
        versions = run.mask_versions()
        assert [(each.version, each.from_frame, each.particles) for each in versions] == [
            (1, 0, 7), (2, 40, 7), (3, 55, 6), (4, 60, 6)
        ]  # fmt: skip
        assert versions[1].actor == "me" and versions[1].edits == [{"action": "remove", "particle_id": 2}]
        assert run.labels().max() == 4 and run.labels(2).max() == 2 and run.labels(9) is None
        assert run.metadata()["mask_version"] == 4
        for version in (None, 1, 4):  # the same reference for all of them
            np.testing.assert_array_equal(run.reference(version), np.full((4, 5), 9.5, np.float32))


def test_a_file_of_before_there_were_versions_is_read_too(run_path):
    without_proof(run_path)
    with sqlite3.connect(run_path) as conn:
        for name in ("from_frame", "utc", "actor", "edits", "particles"):
            conn.execute(f"alter table masks drop column {name}")
        conn.execute("delete from _sqlite_migrations where name = '0011_mask_versions'")
    conn.close()
    with RunReader(run_path) as run:
        assert run.mask_versions() == [MaskVersion(1, 0, "")]
        assert run.labels(1) is not None and run.reference() is not None
    open_writing(run_path, RUN).close()
    with RunReader(run_path) as run:
        assert run.mask_versions() == [MaskVersion(1, 0, "")]


def test_a_version_told_again_replaces_the_earlier(tmp_path):
    with open_run(tmp_path) as (writer, path):
        for first in (9, 7):
            writer.put_masks(MaskVersion(1, first, "u"), np.ones((2, 2), np.int32)).result(WAIT_S)
    with RunReader(path) as run:
        assert [each.from_frame for each in run.mask_versions()] == [7]


@pytest.mark.parametrize("said", [b'"Soc_std" REAL', b'"soc_std" SEAL', b'"soc_ste" REAL'])
def test_a_column_whose_name_or_type_is_damaged_is_missed_where_all_its_values_are_null(run_path, said):
    raw = run_path.read_bytes()
    assert raw.count(b'"soc_std" REAL') == 1
    run_path.write_bytes(raw.replace(b'"soc_std" REAL', said))
    with RunReader(run_path) as run, pytest.raises(StoreError) as caught:
        run.ensemble()
    assert caught.value.reason is StoreReason.CORRUPT and "'ensemble'" in caught.value.detail
    assert "has lost soc_std" in caught.value.detail
    assert check_file(run_path).findings == ["table 'ensemble' has lost soc_std"]


def test_columns_that_a_later_version_added_are_no_damage(run_path):
    conn = sqlite3.connect(run_path)
    conn.execute('alter table ensemble add column "later" text')
    conn.close()
    with RunReader(run_path) as run:
        run.ensemble()
        assert run.damaged_rows == 0
    assert check_file(run_path).is_sound
