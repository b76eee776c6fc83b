from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from daemon.errors import StoreError, StoreReason
from daemon.store.checking import FileChecks
from daemon.store.paths import StateLayout
from daemon.store.retention import Interrupted
from tests.daemon.store.helpers import WAIT_S, running, summary


@pytest.fixture
def layout(tmp_path):
    """Finished runs r1 and r2 (newer), r3 running, r4 without a file."""
    one = StateLayout(tmp_path)
    one.prepare()
    with running(one.catalogue) as writer:
        for number, state in enumerate(("done", "interrupted", "running", "failed"), start=1):
            path = one.run_path(f"r{number}")
            about = summary(path.stem, path, state=state, started_utc=f"2026-01-0{number}T00:00:00+00:00")
            writer.record_run(about).result(WAIT_S)
            if number < 4:
                path.write_bytes(b"a run")
    return one


class Checker:
    """`check_file` and `tell` that remember."""

    def __init__(self, findings=(), stops_at=""):
        self.checked, self.told = [], []
        self.findings, self.stops_at = list(findings), stops_at

    def __call__(self, path, stop):
        self.checked.append(path.stem)
        return SimpleNamespace(findings=self.findings, finished=path.stem != self.stops_at)

    def job(self, layout):
        return FileChecks(layout, self, lambda error: self.told.append(str(error.detail)))


def never():
    return False


def test_every_finished_file_is_checked_once_and_again_when_it_changed(layout):
    checker = Checker()
    job = checker.job(layout)
    assert job.run(never) == "checked 3 files"
    assert checker.checked == ["instrument", "r2", "r1"]
    assert job.run(never) == "nothing to do"
    layout.run_path("r1").write_bytes(b"another")
    assert job.run(never) == "checked 1 files"
    assert checker.checked[3:] == ["r1"] and not checker.told


def test_a_check_that_was_interrupted_is_made_again(layout):
    checker = Checker(stops_at="r2")
    job = checker.job(layout)
    with pytest.raises(Interrupted):
        job.run(never)
    checker.stops_at = ""
    assert job.run(never) == "checked 2 files"
    assert checker.checked == ["instrument", "r2", "r2", "r1"]


def test_a_run_that_begins_ends_the_job_between_two_files(layout):
    checker = Checker()
    with pytest.raises(Interrupted):
        checker.job(layout).run(lambda: len(checker.checked) == 2)
    assert checker.checked == ["instrument", "r2"]


def test_damage_is_told_with_its_file(layout):
    checker = Checker(findings=["row 3 is bad", "row 4 is bad"])
    assert checker.job(layout).run(never) == "3 of 3 files are damaged or cannot be read"
    assert len(checker.told) == 3 and checker.told[1].endswith("r2.db: row 3 is bad (and 1 more)")


def test_what_was_set_aside_is_not_found_damaged_again(layout):
    """It would be set aside anew each time."""
    path = layout.run_path("r2")
    with running(layout.catalogue) as writer:
        why = StoreError(StoreReason.CORRUPT, "page 7 is gone")
        aside = writer.set_aside("r2", path, why).result(WAIT_S)
    checker = Checker(findings=["row 3 is bad"])
    assert checker.job(layout).run(never) == "2 of 2 files are damaged or cannot be read"
    assert checker.checked == ["instrument", "r1"] and aside.exists()


def test_a_run_deleted_meanwhile_is_passed_over(layout):
    checker = Checker()
    job = checker.job(layout)

    def deleting(path, stop):
        if path.stem == "r2":
            os.unlink(layout.run_path("r1"))
        return checker(path, stop)

    job._check = deleting
    assert job.run(never) == "checked 2 files"


def test_a_file_that_cannot_be_read_does_not_keep_the_others_from_being_checked(layout):
    checker = Checker()
    job = checker.job(layout)

    def unreadable(path, stop):
        if path.stem == "r2":
            raise StoreError(StoreReason.NEWER, "written by a newer version")
        return checker(path, stop)

    job._check = unreadable
    assert job.run(never) == "1 of 3 files are damaged or cannot be read"
    assert checker.told == ["written by a newer version"] and checker.checked == ["instrument", "r1"]
    assert job.run(never) == "nothing to do"
