"""Backups, deletions, and when an export counts."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from daemon.api.operations import Operations
from daemon.errors import RunError, RunReason, StoreError, StoreReason
from daemon.parts import RunSummary
from tests.daemon.api.conftest import Serve, Served
from tests.daemon.api.fakes import ADMIN, OPERATE, TOKENS
from tests.daemon.store.helpers import copy_database, damaged_copy

WHOLE = {"format": "csv"}


async def fetched(served: Served, **query: Any) -> bytes:
    """The archive, over its operation when it takes longer."""
    async with served.ask("GET", "/runs/r1/export", params=query) as response:
        if response.status == 200:
            return await response.read()
        operation = await response.json()
    assert (await served.finished(operation))["state"] == "done"
    async with served.ask("GET", f"{operation['url']}/file") as response:
        assert response.status == 200
        return await response.read()


async def exported(served: Served, expected: int) -> list[list[str]]:
    """What was marked; the mark follows the last byte."""
    for _ in range(300 if expected else 5):
        if served.fakes.keeping.exported:
            break
        await asyncio.sleep(0.01)
    return [run_ids for run_ids, _ in served.fakes.keeping.exported]


@pytest.fixture
async def finished(with_run: Served, run_file: RunSummary) -> Served:
    with_run.fakes.runs.runs["r1"] = replace(run_file, state="done")
    return with_run


async def test_a_backup_is_an_operation_whose_result_tells_what_it_did(served: Served, tmp_path: Path) -> None:
    operation = await served.json("POST", "/backup", 202, json={"directory": str(tmp_path)})
    found = await served.finished(operation)
    assert (found["kind"], found["state"]) == ("backup", "done")
    assert found["result"]["copied"] == 2 and found["result"]["whole_runs"] == ["r1"]
    assert found["log"] == [f"copying to {tmp_path}", "run r0 was left out: it is damaged"]
    assert served.fakes.keeping.backups == [tmp_path]
    assert ("backup", str(tmp_path)) in [row[1:] for row in served.fakes.audited]


async def test_a_backup_without_a_place_is_refused(served: Served) -> None:
    problem = await served.json("POST", "/backup", 409)
    assert problem["code"] == "store.backup_place" and "store.backup_dir" in problem["detail"]


async def test_a_backup_asked_for_twice_is_one_and_can_be_cancelled(served: Served, tmp_path: Path) -> None:
    served.fakes.keeping.held = threading.Event()
    first = await served.json("POST", "/backup", 202, json={"directory": str(tmp_path)})
    second = await served.json("POST", "/backup", 202, json={"directory": str(tmp_path)})
    assert first["operation_id"] == second["operation_id"]
    await served.json("DELETE", first["url"])
    assert (await served.finished(first))["state"] == "cancelled"
    served.fakes.keeping.held = None
    third = await served.json("POST", "/backup", 202, json={"directory": str(tmp_path)})
    assert third["operation_id"] != first["operation_id"]
    await served.finished(third)
    fourth = await served.json("POST", "/backup", 202, json={"directory": str(tmp_path)})
    assert fourth["operation_id"] != third["operation_id"]  # one that is done is not joined
    await served.finished(fourth)


async def test_a_backup_keeps_no_bundle_waiting(served: Served, tmp_path: Path) -> None:
    served.fakes.keeping.held = threading.Event()
    backup = await served.json("POST", "/backup", 202, json={"directory": str(tmp_path)})
    async with served.ask("GET", "/diagnostics/bundle") as response:
        assert response.status in (200, 202)
        if response.status == 202:
            assert (await served.finished(await response.json()))["state"] == "done"
    served.fakes.keeping.held.set()
    assert (await served.finished(backup))["state"] == "done"


async def test_a_backup_that_fails_says_why(served: Served, tmp_path: Path) -> None:
    served.fakes.keeping.problem = StoreError(StoreReason.BACKUP_FULL, "no room")
    operation = await served.json("POST", "/backup", 202, json={"directory": str(tmp_path)})
    found = await served.finished(operation)
    assert found["state"] == "failed"
    assert (found["error"]["code"], found["error"]["status"]) == ("store.backup_full", 507)


async def test_deleting_needs_admin_and_leaves_a_row(serve: Serve, run_file: RunSummary) -> None:
    served = await serve(tokens=TOKENS)
    served.fakes.runs.runs["r1"] = replace(run_file, state="done")
    for token, status in ((OPERATE, 403), (ADMIN, 200)):
        headers = {"Authorization": f"Bearer {token}"}
        answer = await served.json("DELETE", "/runs/r1?unexported=true", status, headers=headers)
    assert answer["state"] == "deleted" and answer["deleted_utc"]
    assert served.fakes.keeping.deleted == [("r1", "token:engineer", True)]
    for path in ("particles", "traces", "events", "cycles", "echem", "export", "report", "masks", "clips"):
        problem = await served.json("GET", f"/runs/r1/{path}", 410, headers=headers)
        assert problem["code"] == "run.deleted" and problem["remedy"], path
    assert (await served.json("GET", "/runs/r1", headers=headers))["state"] == "deleted"


@pytest.mark.parametrize(
    ("reason", "status"),
    [(RunReason.NOT_EXPORTED, 409), (RunReason.IN_USE, 409), (RunReason.BUSY, 409), (RunReason.NOT_FOUND, 404)],
)
async def test_what_may_not_be_deleted(served: Served, reason: RunReason, status: int) -> None:
    served.fakes.keeping.problem = RunError(reason, "no")
    assert (await served.json("DELETE", "/runs/r1", status))["code"] == reason.code


async def test_everything_of_a_finished_run_fetched_whole_counts_as_exported(finished: Served) -> None:
    assert await fetched(finished, **WHOLE)
    assert await exported(finished, 1) == [["r1"]]


async def test_an_export_that_lacks_what_is_damaged_does_not_count(
    finished: Served, run_file: RunSummary, tmp_path: Path
) -> None:
    path = await asyncio.to_thread(damaged_copy, run_file.path, tmp_path / "r1.db")
    finished.fakes.runs.runs["r1"] = replace(run_file, state="done", path=path)
    assert await fetched(finished, **WHOLE)
    assert await exported(finished, 0) == []
    [operation] = (await finished.json("GET", "/operations"))["operations"]
    assert (operation["result"]["corrupt_chunks"], operation["result"]["damaged_rows"]) == (1, {})
    assert operation["log"] == ["left out, because they are damaged: 1 chunks of frames, 0 rows"]
    async with finished.ask("GET", operation["result"]["file_url"]) as response:
        assert response.headers["X-Damaged-Chunks"] == "1" and "X-Damaged-Rows" not in response.headers


async def test_nothing_that_was_set_aside_counts_as_exported(
    finished: Served, run_file: RunSummary, tmp_path: Path
) -> None:
    path = tmp_path / "r1.db.damaged-2"
    await asyncio.to_thread(copy_database, run_file.path, path)
    finished.fakes.runs.runs["r1"] = replace(run_file, state="interrupted", path=path)
    assert await fetched(finished, **WHOLE)
    assert await exported(finished, 0) == []


@pytest.mark.parametrize("selection", [{"tables": "events"}, {"particles": "11"}, {"from": "0"}, {"to": "100"}])
async def test_a_selection_does_not_count(finished: Served, selection: dict[str, str]) -> None:
    assert await fetched(finished, **WHOLE, **selection)
    assert await exported(finished, 0) == []


async def test_a_run_in_progress_does_not_count(with_run: Served) -> None:
    assert await fetched(with_run, **WHOLE)
    assert await exported(with_run, 0) == []


async def test_an_archive_that_was_not_fetched_whole_does_not_count(
    finished: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Operations.wait, "__defaults__", (0.0,))
    operation = await finished.json("GET", "/runs/r1/export", 202, params=WHOLE)
    assert (await finished.finished(operation))["state"] == "done"
    url = f"{operation['url']}/file"
    async with finished.ask("GET", url, headers={"Range": "bytes=0-99"}) as response:
        assert response.status == 206 and len(await response.read()) == 100
    async with finished.ask("HEAD", url) as response:
        assert response.status == 200
    assert await exported(finished, 0) == []
    async with finished.ask("GET", url) as response:
        assert await response.read()
    assert await exported(finished, 1) == [["r1"]]


async def test_a_folder_that_no_path_can_name_is_refused(served: Served) -> None:
    problem = await served.json("POST", "/backup", 400, json={"directory": "/tmp/\0"})
    assert problem["errors"][0]["field"] == "directory"
    assert served.fakes.keeping.backups == []
