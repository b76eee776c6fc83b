"""Recent faults: counted, bounded, kept over restarts."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.diagnostics.faults import MAX_DETAIL_CHARS, MAX_FAULTS, Faults, faults_file, read_faults
from daemon.errors import CameraError, CameraReason

STALLED = CameraError(CameraReason.STALLED, "no frame for 2 s")


def test_equal_faults_are_counted_in_one_entry() -> None:
    codes: list[str] = []
    faults = Faults(None, codes.append)
    for _ in range(3):
        faults.record(STALLED)
    faults.note("clock.stepped", "by 3 s")
    newest, first = faults.recent()
    assert (newest["code"], first["code"]) == ("clock.stepped", "camera.stalled")
    assert first["count"] == 3
    assert first["remedy"] == CameraReason.STALLED.remedy
    assert first["first_monotonic_s"] <= first["last_monotonic_s"]
    assert codes == ["camera.stalled"] * 3 + ["clock.stepped"]


def test_only_the_first_of_its_kind_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    faults = Faults(None)
    for _ in range(5):
        faults.record(STALLED)
    assert len(caplog.records) == 1
    assert CameraReason.STALLED.remedy in caplog.text


def test_the_list_is_bounded_and_forgets_the_longest_quiet() -> None:
    faults = Faults(None)
    faults.note("first", "x" * 10_000)
    for number in range(MAX_FAULTS - 1):
        faults.note("many", str(number))
    faults.note("first", "x" * 10_000)
    faults.note("last", "")
    recent = faults.recent()
    assert len(recent) == MAX_FAULTS
    assert [fault["code"] for fault in recent[:2]] == ["last", "first"]
    assert len(recent[1]["detail"]) == MAX_DETAIL_CHARS
    assert len(faults.recent(limit=5)) == 5


def test_faults_survive_a_restart(tmp_path: Path) -> None:
    before = Faults(tmp_path)
    before.record(STALLED)
    before.persist()
    after = Faults(tmp_path)
    after.load()
    (fault,) = after.recent()
    assert (fault["count"], fault["this_boot"]) == (1, False)
    after.record(STALLED)
    assert [(f["count"], f["this_boot"]) for f in after.recent()] == [(2, True)]


def test_persisting_writes_only_changes(tmp_path: Path) -> None:
    faults = Faults(tmp_path)
    faults.persist()
    assert not faults_file(tmp_path).exists()
    faults.record(STALLED)
    faults.persist()
    faults_file(tmp_path).unlink()
    faults.persist()
    assert not faults_file(tmp_path).exists()


def test_a_damaged_file_gives_what_is_whole(tmp_path: Path) -> None:
    faults = Faults(tmp_path)
    faults.record(STALLED)
    faults.persist()
    with faults_file(tmp_path).open("ab") as file:
        file.write(b'{"code": "torn", "det\n{"code": "other version"}\n[1]\n\xff\xfe\n')
    assert len(read_faults(tmp_path)) == 2
    again = Faults(tmp_path)
    again.load()
    assert [fault["code"] for fault in again.recent()] == ["camera.stalled"]


def test_a_directory_that_is_gone_is_logged_and_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state_dir = tmp_path / "state"
    faults = Faults(state_dir)
    faults.load()
    faults.record(STALLED)
    faults.persist()
    assert "cannot be written" in caplog.text
    state_dir.mkdir()
    faults.persist()
    assert len(read_faults(state_dir)) == 1
