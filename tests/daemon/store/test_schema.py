from __future__ import annotations

import hashlib
import sqlite3
import subprocess

import pytest
from sqlite_utils import Database, Migrations

from daemon.errors import StoreError, StoreReason
from daemon.store import schema
from daemon.store.rows import CELL_COLUMNS, EVENT_COLUMNS, KEEPING_FIELDS, PARTICLE_COLUMNS, RUN_FIELDS
from daemon.store.schema import CATALOGUE, RUN, FileKind, open_reading, open_writing
from daemon.tables import CYCLES, ENSEMBLE

KINDS = pytest.mark.parametrize("kind", [CATALOGUE, RUN], ids=lambda kind: kind.name)


def make(path, kind):
    open_writing(path, kind, create=True).close()
    return path


def refused(reason, opener, *arguments, **options):
    with pytest.raises(StoreError) as caught:
        opener(*arguments, **options)
    assert caught.value.reason is reason
    return caught.value


@KINDS
def test_settings_of_the_writing_connection(tmp_path, kind):
    db = open_writing(tmp_path / "a.db", kind, create=True)
    try:
        pragmas = {name: db.execute(f"PRAGMA {name}").fetchone()[0] for name in
                   ("journal_mode", "synchronous", "mmap_size", "wal_autocheckpoint")}  # fmt: skip
        assert pragmas == {"journal_mode": "wal", "synchronous": 2, "mmap_size": 0, "wal_autocheckpoint": 0}
    finally:
        db.close()


def test_tables_hold_the_exported_columns(tmp_path):
    db = open_writing(tmp_path / "run.db", RUN, create=True)
    try:
        for table, columns in {
            "particles": PARTICLE_COLUMNS, "events": EVENT_COLUMNS, "cycles": CYCLES, "ensemble": ENSEMBLE,
            "cell_samples": CELL_COLUMNS,
        }.items():  # fmt: skip
            assert set(db.table(table).columns_dict) == {*columns, "row_crc32"}
    finally:
        db.close()
    catalogue = open_writing(tmp_path / "instrument.db", CATALOGUE, create=True)
    try:
        keeping = {*KEEPING_FIELDS, "exported_to"}
        assert set(catalogue.table("runs").columns_dict) == {*RUN_FIELDS, "row_crc32"} | keeping
    finally:
        catalogue.close()


@KINDS
def test_opening_again_changes_nothing(tmp_path, kind):
    path = make(tmp_path / "a.db", kind)
    before = path.read_bytes()
    open_writing(path, kind).close()
    assert path.read_bytes() == before


def test_an_existing_file_is_not_overwritten(tmp_path):
    path = make(tmp_path / "a.db", RUN)
    error = refused(StoreReason.EXISTS, open_writing, path, RUN, create=True)
    assert str(path) in error.detail


@KINDS
@pytest.mark.parametrize("opener", [open_reading, open_writing])
def test_a_newer_file_is_refused_untouched(tmp_path, kind, opener):
    path = make(tmp_path / "a.db", kind)
    with sqlite3.connect(path) as conn:
        row = (kind.steps.name, "9999_from_the_future", "2030-01-01")
        conn.execute("insert into _sqlite_migrations (migration_set, name, applied_at) values (?, ?, ?)", row)
    conn.close()
    digest = hashlib.sha256(path.read_bytes()).digest()
    error = refused(StoreReason.NEWER, opener, path, kind)
    assert "9999_from_the_future" in error.detail
    assert hashlib.sha256(path.read_bytes()).digest() == digest


@pytest.mark.parametrize("opener", [open_reading, open_writing])
def test_what_is_no_run_is_refused_untouched(tmp_path, opener):
    text = tmp_path / "notes.txt"
    text.write_text("no database at all, but long enough to have a header" * 50)
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as conn:
        conn.execute("create table holiday (place text)")
    conn.close()
    for path in (text, other, make(tmp_path / "instrument.db", CATALOGUE)):
        before = path.read_bytes()
        refused(StoreReason.NOT_A_RUN, opener, path, RUN)
        assert path.read_bytes() == before


def test_reading_what_is_not_there_or_empty(tmp_path):
    refused(StoreReason.NOT_A_RUN, open_reading, tmp_path / "nothing.db", RUN)
    (tmp_path / "empty.db").touch()
    refused(StoreReason.NOT_A_RUN, open_reading, tmp_path / "empty.db", RUN)


def test_a_folder_that_is_not_there(tmp_path):
    error = refused(StoreReason.NOT_WRITABLE, open_writing, tmp_path / "no" / "a.db", RUN, create=True)
    assert "no/a.db" in error.detail


def test_a_damaged_file_is_corrupt(tmp_path):
    path = make(tmp_path / "a.db", RUN)
    content = bytearray(path.read_bytes())
    content[100:4096] = b"\xff" * 3996
    path.write_bytes(content)
    refused(StoreReason.CORRUPT, open_reading, path, RUN)
    refused(StoreReason.CORRUPT, open_writing, path, RUN)


def test_a_catalogue_that_is_no_database_is_corrupt(tmp_path):
    (tmp_path / "instrument.db").write_bytes(b"\0" * 8192)
    refused(StoreReason.CORRUPT, open_writing, tmp_path / "instrument.db", CATALOGUE)


@KINDS
def test_a_reader_can_neither_write_nor_checkpoint(tmp_path, kind):
    db = open_reading(make(tmp_path / "a.db", kind), kind)
    try:
        with pytest.raises(sqlite3.OperationalError):
            db.conn.execute("create table x (y)")
        assert db.execute("PRAGMA mmap_size").fetchone() in (None, (0,))
    finally:
        db.close()


def older_file_and_kind(path):
    """A file with the first half of today's steps, and the kind that knows all of them."""
    half = RUN.steps.pending(Database(memory=True))[5].name
    open_empty = sqlite3.connect(path)
    db = Database(open_empty)
    db.enable_wal()
    RUN.steps.apply(db, stop_before=half)
    db.execute("insert into metadata values ('name', '\"old\"')")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    return path


class Injected(Exception):
    """Not a failure of ours."""


def failing_after(statements):
    """sqlite-utils' execute, which raises once it was called `statements` times."""
    original = Database.execute
    left = [statements]

    def execute(self, sql, parameters=None):
        left[0] -= 1
        if left[0] < 0:
            raise Injected(sql)
        return original(self, sql, parameters)

    return execute, left


@pytest.mark.parametrize("create", [True, False], ids=["new file", "older file"])
def test_a_migration_that_fails_at_any_statement_leaves_the_file_as_before(tmp_path, monkeypatch, create):
    older = None if create else older_file_and_kind(tmp_path / "older.db").read_bytes()
    failures = 0
    for statements in range(0, 400, 3 if create else 1):
        path = tmp_path / f"{statements}.db"
        if older is not None:
            path.write_bytes(older)
        execute, left = failing_after(statements)
        with monkeypatch.context() as patch:
            patch.setattr(Database, "execute", execute)
            try:
                open_writing(path, RUN, create=create).close()
            except Injected:
                failures += 1
            else:
                assert left[0] >= 0
                break
        assert path.exists() is not create
        if older is not None:
            assert path.read_bytes() == older
    assert failures > 15
    db = open_reading(path, RUN)
    assert not RUN.steps.pending(db)
    db.close()


def test_steps_added_later_reach_an_older_file_and_keep_its_rows(tmp_path):
    db = open_writing(older_file_and_kind(tmp_path / "older.db"), RUN)
    try:
        assert db.execute("select value from metadata").fetchall() == [('"old"',)]
        assert db.table("masks").exists()
    finally:
        db.close()


def test_a_step_of_tomorrow_is_applied_by_the_version_that_has_it(tmp_path):
    path = make(tmp_path / "a.db", RUN)
    tomorrow = Migrations(RUN.steps.name)
    for step in RUN.steps.pending(Database(memory=True)):
        tomorrow(name=step.name)(step.fn)
    tomorrow(name="0099_comment")(lambda db: db.table("particles").add_column("comment", str))
    db = open_writing(path, FileKind("run file", RUN.application_id, tomorrow))
    columns = db.table("particles").columns_dict
    db.close()
    assert "comment" in columns
    refused(StoreReason.NEWER, open_writing, path, RUN)


FIRST = {
    "run file": (
        "0001_metadata 0002_particles 0003_calibrations 0004_events 0005_cycles 0006_ensemble 0007_cell_samples"
        " 0008_drops_and_faults 0009_chunks 0010_masks 0011_mask_versions 0014_health 0012_fronts 0015_clips 0024_axial"
        " 0025_proof"
    ),
    "catalogue": "0001_meta 0002_runs 0003_events 0004_calibrations 0005_audit_and_faults 0006_proof",
}
"""Steps of the first release."""


def shape(db):
    """Of each table its columns (type, whether required, default, key) and unique indexes; the SQL of what else is."""
    tables = [name for (name,) in db.execute("select name from sqlite_master where type = 'table'")]
    others = "select name, sql from sqlite_master where type not in ('table', 'index')"
    return {
        "columns": {name: {row[1]: row[2:] for row in db.execute(f"pragma table_info('{name}')")} for name in tables},
        "unique": {name: {row[1] for row in db.execute(f"pragma index_list('{name}')") if row[2]} for name in tables},
        "others": dict(db.execute(others).fetchall()),
    }


def not_additive(before, after):
    """What keeps a version that knows `before` from writing what `after` describes; empty when nothing does."""
    found = [f"other objects: {after['others']}"] if before["others"] != after["others"] else []
    for table, columns in before["columns"].items():
        now = after["columns"].get(table)
        if now is None or any(now.get(name) != column for name, column in columns.items()):
            found.append(f"{table} lost or changed a column")
            continue
        required = [name for name in now.keys() - columns.keys() if now[name][1] and now[name][2] is None]
        if required or before["unique"][table] != after["unique"][table]:
            found.append(f"{table} demands what it did not: {required or 'uniqueness'}")
    return found


@KINDS
def test_a_version_before_can_write_what_a_later_one_made(kind):
    """Without this no update could be gone back from; a step that cannot be so is for a new major version."""
    db = Database(memory=True)
    try:
        for step in kind.steps.pending(db):
            before = shape(db)
            step.fn(db)
            if step.name not in FIRST[kind.name].split():
                assert not_additive(before, shape(db)) == [], step.name
                assert schema.may_be_ignored(step.name), step.name
    finally:
        db.close()


@pytest.mark.parametrize(
    "statement",
    ["drop table events", "alter table runs drop column detail", "alter table runs rename column detail to note",
     "alter table runs add column owner text not null default ''", "create unique index x on runs (name)",
     "create trigger x before insert on runs begin select 1; end", "alter table runs add column note text",
     "create index x on runs (name)", "create table wear (day text)"],
)  # fmt: skip
def test_what_is_additive(statement):
    harmless = statement.endswith(("default ''", "note text", "(day text)")) or statement.startswith("create index")
    db = Database(memory=True)
    try:
        CATALOGUE.steps.apply(db)
        before = shape(db)
        db.execute(statement)
        assert (not_additive(before, shape(db)) == []) is harmless
    finally:
        db.close()


def test_an_additive_step_of_tomorrow_is_no_hindrance(tmp_path):
    path = make(tmp_path / "instrument.db", CATALOGUE)
    tomorrow = Migrations(CATALOGUE.steps.name)
    tomorrow(name="0099+_wear")(lambda db: db.table("runs").add_column("wear", float))
    with sqlite3.connect(path) as conn:
        tomorrow.apply(Database(conn))
    conn.close()
    for opener in (open_reading, open_writing):
        db = opener(path, CATALOGUE)
        assert "wear" in db.table("runs").columns_dict
        db.close()


@pytest.mark.parametrize("name", ["0099_wear+_x", "+_wear", "0099+wear", "new+_wear", ""])
def test_only_a_number_and_a_plus_sign_say_additive(name):
    assert not schema.may_be_ignored(name)


def test_a_finished_file_is_one_file_unless_somebody_reads_it(tmp_path):
    path = tmp_path / "a.db"
    db = open_writing(path, RUN, create=True)
    reader = open_reading(path, RUN)
    reader.execute("select * from metadata").fetchall()
    schema.finish_file(db)
    assert db.journal_mode == "wal"
    reader.close()
    schema.finish_file(db)
    assert db.journal_mode == "delete"
    db.close()
    assert [each.name for each in tmp_path.iterdir()] == ["a.db"]


def test_a_file_on_a_read_only_medium_can_be_read(small_disk):
    db = open_writing(small_disk / "a.db", RUN, create=True)
    reader = open_reading(small_disk / "a.db", RUN)
    reader.execute("select * from metadata").fetchall()
    schema.finish_file(db)
    assert db.journal_mode == "wal"
    reader.close()
    db.close()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    reader = open_reading(small_disk / "a.db", RUN)
    assert reader.execute("select * from metadata").fetchall() == []
    reader.close()
