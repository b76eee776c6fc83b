"""Backups, restores and deletions from the command line."""

from __future__ import annotations

import json

import pytest

from daemon.ctl import client
from daemon.store.lock import StateLock
from daemon.store.paths import StateLayout
from daemon.store.reader import CatalogueReader
from tests.daemon.ctl.fake_daemon import RUN, answering, refusing
from tests.daemon.store.helpers import WAIT_S, frames, running, summary

REPORT = {"directory": "/mnt/share", "copied": 3, "copied_bytes": 2_500_000, "unchanged": 7, "whole_runs": ["a", "b"],
          "damaged": [{"run_id": "r0", "code": "store.corrupt", "detail": "it is damaged"}]}  # fmt: skip


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(client, "POLL_S", 0.01)


@pytest.fixture
def state(tmp_path):
    layout = StateLayout(tmp_path / "state")
    layout.prepare()
    with running(layout.catalogue, commit_interval_s=0.02) as writer:
        writer.create_run(layout.run_path("r1"), {}, summary("r1", layout.run_path("r1"))).result(WAIT_S)
        writer.put_chunk(*frames(0, 20))
        writer.update_run("r1", state="done").result(WAIT_S)
        writer.close_run().result(WAIT_S)
    (tmp_path / "share").mkdir()
    return layout


def test_the_daemon_makes_the_backup(ctl, fake, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    running_ = {"operation_id": "9", "state": "running", "progress": 0.5, "log": ["copying"], "url": "/operations/9"}
    fake.answers["POST /backup"] = answering(running_)
    fake.operations["9"] = [running_, {**running_, "state": "done", "result": REPORT}]
    done = ctl("backup", "share")
    assert done.exit_code == 0, done.stderr
    assert done.stdout == "/mnt/share: 2 finished runs, 3 files copied (2.5 MB), 7 had been copied before\n"
    assert done.stderr == "copying\nphotometryctl: run r0 was left out: it is damaged\n"
    assert fake.asked("POST", "/backup") == [({}, {"directory": str(tmp_path / "share")})]
    fake.answers["POST /backup"] = answering(REPORT)
    assert json.loads(ctl("backup", "--json").stdout) == REPORT
    assert fake.asked("POST", "/backup")[-1] == ({}, {})  # where the daemon is configured to


def test_a_daemon_that_refuses_is_not_gone_around(ctl, fake, state, tmp_path):
    fake.answers["POST /backup"] = refusing(403, "api.forbidden", "this needs the scope admin", "Use another token.")
    done = ctl("backup", tmp_path / "share", "--state-dir", state.state_dir)
    assert done.exit_code == 1 and "scope admin" in done.stderr
    assert not list((tmp_path / "share").iterdir())


def test_with_the_daemon_dead_it_is_made_here_and_can_be_restored(run, state, tmp_path):
    nobody = ("--socket", tmp_path / "none.sock")
    share, new = tmp_path / "share", tmp_path / "new"
    done = run(*nobody, "backup", share, "--state-dir", state.state_dir)
    assert done.exit_code == 0, done.stderr
    assert "copying without it" in done.stderr and "1 finished runs, 2 files copied" in done.stdout
    with CatalogueReader(state.catalogue) as catalogue:
        assert catalogue.run("r1").exported_utc
    done = run("restore", share, "--state-dir", new)
    assert done.exit_code == 0 and done.stdout.startswith(f"{new}: 1 runs as of 20"), done.stderr
    assert (new / "runs" / "r1.db").read_bytes() == state.run_path("r1").read_bytes()
    again = run("restore", share, "--state-dir", new)
    assert again.exit_code == 1 and "is not empty" in again.stderr
    assert run("restore", share, "--state-dir", tmp_path / "json", "--json").exit_code == 0


def test_a_daemon_that_does_not_answer_but_holds_the_directory_is_respected(run, state, tmp_path):
    with StateLock(state.lock):
        done = run("--socket", tmp_path / "no.sock", "backup", tmp_path / "share", "--state-dir", state.state_dir)
    assert done.exit_code == 1 and "in use by process" in done.stderr


def test_without_daemon_and_directory_it_is_wrong_usage(run, tmp_path):
    assert run("--socket", tmp_path / "no.sock", "backup").exit_code == 2


def test_a_run_is_deleted(ctl, fake):
    fake.answers["DELETE /runs/r7"] = answering({**RUN, "state": "deleted"})
    assert ctl("runs", "delete", "r7").stdout == "run r7 is deleted\n"
    assert json.loads(ctl("runs", "delete", "r7", "--unexported", "--json").stdout)["state"] == "deleted"
    assert [query for query, _ in fake.asked("DELETE", "/runs/r7")] == [{}, {"unexported": "true"}]
    fake.answers["DELETE /runs/r7"] = refusing(409, "run.not_exported", "no backup holds it", "Back it up.")
    done = ctl("runs", "delete", "r7")
    assert (done.exit_code, done.stderr) == (1, "photometryctl: no backup holds it. Back it up.\n")


def test_the_list_of_runs_is_still_a_command_of_its_own(ctl):
    assert "r7" in ctl("runs", "--limit", "5").stdout
