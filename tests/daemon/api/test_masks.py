"""The masks of a run over HTTP."""

from __future__ import annotations

import asyncio
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from daemon.api.problems import http_status
from daemon.errors import MaskError, MaskReason, RunError, RunReason
from daemon.photometry.edits import rasterised
from tests.daemon.api.conftest import Serve, Served
from tests.daemon.api.fakes import OPERATE, READ, TOKENS, mask_labels, summary

SQUARE = [[4.5, 1.5], [4.5, 5.5], [8.5, 5.5], [8.5, 1.5]]
REMOVE: dict[str, Any] = {"edits": [{"action": "remove", "particle_id": 10}]}


async def test_the_versions_are_listed(with_run: Served) -> None:
    found = await with_run.json("GET", "/runs/r1/masks")
    assert found["run_id"] == "r1"
    assert found["versions"] == [
        {"version": 1, "from_frame": 0, "utc": "2026-01-02T03:04:05.000+00:00", "actor": "", "edits": [],
         "particles": 3}
    ]  # fmt: skip


async def test_outlines_of_a_version_draw_its_pixels_again(with_run: Served) -> None:
    found = await with_run.json("GET", "/runs/r1/masks?version=1")
    assert (found["version"], found["height_px"], found["width_px"]) == (1, 20, 40)
    assert [each["particle_id"] for each in found["outlines"]] == [10, 11, 13], "a removed particle has no outline"
    labels = mask_labels()
    for index, each in zip((0, 1, 3), found["outlines"], strict=True):
        np.testing.assert_array_equal(rasterised(each["outline_px"], labels.shape), labels == index + 1)


@pytest.mark.parametrize("query", ["", "?version=1"])
async def test_a_picture_holds_the_ids(with_run: Served, query: str) -> None:
    async with with_run.ask("GET", f"/runs/r1/masks{query}", headers={"Accept": "image/png"}) as response:
        assert response.content_type == "image/png"
        picture = np.asarray(Image.open(io.BytesIO(await response.read())))
    np.testing.assert_array_equal(picture, np.array([0, 10, 11, 12, 13])[mask_labels()])


async def test_a_version_that_is_not_there(with_run: Served) -> None:
    problem = await with_run.json("GET", "/runs/r1/masks?version=7", 404)
    assert problem["code"] == "masks.no_such_version" and "7" in problem["detail"]


async def test_edits_reach_the_run_with_their_actor_and_are_audited(with_run: Served) -> None:
    body = REMOVE | {"version": 1}
    body["edits"] = [*REMOVE["edits"], {"action": "add", "outline_px": SQUARE}]
    found = await with_run.json("PATCH", "/runs/r1/masks", json=body)
    assert (found["run_id"], found["version"], found["from_frame"], found["particles"]) == ("r1", 2, 40, 3)
    ((run_id, change, actor),) = with_run.fakes.runs.edited
    assert (run_id, change.version, change.edits[1].outline_px) == ("r1", 1, SQUARE)
    assert actor.startswith("local:")
    assert with_run.fakes.audited == [
        (actor, "run.masks", "r1 version 2 from frame 40: remove 10, add ")
    ]  # the fake gives no ids


async def test_a_long_edit_is_an_operation(with_run: Served) -> None:
    runs = with_run.fakes.runs
    runs.held = asyncio.Event()
    operation = await with_run.json("PATCH", "/runs/r1/masks", 202, json=REMOVE)
    assert operation["kind"] == "run.masks"
    runs.held.set()
    found = await with_run.finished(operation)
    assert found["state"] == "done" and found["result"]["version"] == 2


@pytest.mark.parametrize(
    ("error", "status"),
    [(MaskError(reason, "why"), http_status(reason)) for reason in MaskReason]
    + [(RunError(RunReason.NOT_RUNNING, "why"), 409)],
    ids=lambda value: getattr(value, "code", value),
)
async def test_refusals_are_problem_documents_and_audited_as_such(with_run: Served, error: Any, status: int) -> None:
    with_run.fakes.runs.mask_problem = error
    problem = await with_run.json("PATCH", "/runs/r1/masks", status, json=REMOVE)
    assert status < 500 and (problem["code"], problem["detail"], problem["remedy"]) == (error.code, "why", error.remedy)
    await with_run.server.stop()  # which waits for what is being written
    action = "PATCH /api/v1/runs/r1/masks"
    assert with_run.fakes.audited == [("local:127.0.0.1", action, f"refused: {error.code}")]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "edits"),
        ({"edits": []}, "edits"),
        ({"edits": [{"action": "paint", "particle_id": 1}]}, "edits.0"),
        ({"edits": [{"action": "remove"}]}, "edits.0.remove.particle_id"),
        ({"edits": [{"action": "remove", "particle_id": "10"}]}, "edits.0.remove.particle_id"),
        ({"edits": [{"action": "remove", "particle_id": 1, "outline_px": SQUARE}]}, "edits.0.remove.outline_px"),
        ({"edits": [{"action": "add", "outline_px": [[1.0, 2.0, 3.0]]}]}, "edits.0.add.outline_px.0"),
        ({"edits": [{"action": "add", "outline_px": [[0.0, 0.0]] * 3000}]}, "edits.0.add.outline_px"),
        (REMOVE | {"version": 0}, "version"),
    ],
)
async def test_a_wrong_body_names_its_field(with_run: Served, body: Any, field: str) -> None:
    problem = await with_run.json("PATCH", "/runs/r1/masks", 400, json=body)
    assert problem["code"] == "api.bad_request" and field in [error["field"] for error in problem["errors"]]
    assert with_run.fakes.runs.edited == []


async def test_an_outline_that_is_not_finite_is_no_json(with_run: Served) -> None:
    raw = b'{"edits": [{"action": "add", "outline_px": [[NaN, 1], [2, 3], [4, 5]]}]}'
    headers = {"Content-Type": "application/json"}
    problem = await with_run.json("PATCH", "/runs/r1/masks", 400, data=raw, headers=headers)
    assert problem["code"] == "api.bad_request"


async def test_editing_needs_the_scope_operate(serve: Serve, run_file: Any) -> None:
    served = await serve(tokens=TOKENS)
    served.fakes.runs.runs["r1"] = summary("r1", run_file.path)
    reads = {"Authorization": f"Bearer {READ}"}
    assert (await served.json("PATCH", "/runs/r1/masks", 403, json=REMOVE, headers=reads))["code"] == "api.forbidden"
    await served.json("GET", "/runs/r1/masks", headers=reads)
    await served.json("PATCH", "/runs/r1/masks", json=REMOVE, headers={"Authorization": f"Bearer {OPERATE}"})
    await served.server.stop()
    assert [row[0] for row in served.fakes.audited] == ["token:viewer", "token:operator"]


async def test_a_run_that_is_not_there(served: Served) -> None:
    for method in ("GET", "PATCH"):
        assert (await served.json(method, "/runs/nope/masks", 404, json=REMOVE))["code"] == "run.not_found"
