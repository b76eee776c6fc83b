"""The masks of a run: their versions, their outlines, and edits that take effect between two frames."""

from __future__ import annotations

import asyncio
import io
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from aiohttp import web
from PIL import Image
from pydantic import Field

from daemon.api import accept, longwork, models
from daemon.api.endpoint import Call, Endpoint, Query
from daemon.api.jsonio import dumps
from daemon.api.operations import Job
from daemon.api.runs import RunPath
from daemon.errors import MaskError, MaskReason
from daemon.mask_edits import MaskChange, MaskVersion
from daemon.photometry.outlines import outlines_of
from daemon.store.reader import RunReader

LARGEST_GREY = 65_535


class MasksQuery(Query):
    """Which version."""

    version: int | None = Field(default=None, ge=1, description="This version and its outlines; the list when absent.")


async def show_masks(call: Call) -> web.Response:
    """The versions, or one of them as outlines or as a picture of particle ids."""
    path = (await call.stored_run()).path
    media_type = accept.choose(call.request, (accept.JSON, accept.PNG))
    body = await call.work(_shown, path, call.path.run_id, call.query.version, media_type)
    return web.Response(body=body, content_type=media_type)


def _shown(path: Path, run_id: str, version: int | None, media_type: str) -> bytes:
    with RunReader(path) as reader:
        versions = reader.mask_versions()
        if version is None and media_type == accept.JSON:
            return dumps({"run_id": run_id, "versions": [asdict(each) for each in versions]})
        about = _chosen(versions, version, run_id)
        labels = reader.labels(about.version)
        rows = reader.particles()
    assert labels is not None
    if media_type == accept.PNG:
        return _picture(labels, rows)
    size = {"height_px": labels.shape[0], "width_px": labels.shape[1]}
    return dumps({"run_id": run_id, **asdict(about), **size, "outlines": _outlines(labels, rows)})


def _chosen(versions: list[MaskVersion], version: int | None, run_id: str) -> MaskVersion:
    """The version asked for, or the newest. Raises `MaskError` (NO_VERSION)."""
    for about in reversed(versions):
        if version in (None, about.version):
            return about
    raise MaskError(MaskReason.NO_VERSION, f"run '{run_id}' has no version {version or 1} of its masks")


def _outlines(labels: np.ndarray, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = outlines_of(labels)
    return [
        {
            "particle_id": row["particle_id"],
            "parent_id": row["parent_id"],
            "state": row["state"],
            "outline_px": found[row["particle_index"] + 1],
        }
        for row in rows
        if row["particle_index"] + 1 in found
    ]


def _picture(labels: np.ndarray, rows: list[dict[str, Any]]) -> bytes:
    """Sixteen bits a pixel: the id of the particle there, 0 for none, 65535 for ids beyond."""
    ids = np.zeros(max(int(labels.max(initial=0)), len(rows)) + 1, np.int64)
    for row in rows:
        ids[row["particle_index"] + 1] = row["particle_id"]
    sink = io.BytesIO()
    Image.fromarray(np.minimum(ids[labels], LARGEST_GREY).astype(np.uint16)).save(sink, "PNG")
    return sink.getvalue()


async def edit_masks(call: Call) -> web.StreamResponse:
    """All edits between the same two frames, or none."""
    run_id, change = call.path.run_id, call.body
    await call.parts.runs.get(run_id)

    async def work(job: Job) -> dict[str, Any]:
        editing = call.parts.runs.edit_masks(run_id, change, call.actor.name)
        about = await asyncio.shield(asyncio.ensure_future(editing))  # what has begun takes effect as a whole
        done = ", ".join(f"{edit['action']} {_whom(edit)}" for edit in about.edits)
        await call.audit("run.masks", f"{run_id} version {about.version} from frame {about.from_frame}: {done}")
        return {"run_id": run_id, **asdict(about)}

    job, _ = await longwork.begin(call, "run.masks", work)
    return await longwork.answer_soon(call, job)


def _whom(edit: dict[str, Any]) -> str:
    return " by ".join(str(edit[name]) for name in ("particle_id", "new_particle_id") if name in edit)


ENDPOINTS = (
    Endpoint(
        "GET",
        "/runs/{run_id}/masks",
        show_masks,
        "The versions of a run's masks, or one version's outlines.",
        path_model=RunPath,
        query=MasksQuery,
        answer=models.MaskVersionList,
        media_types=(accept.JSON, accept.PNG),
        statuses={404: "The run has no such version."},
    ),
    Endpoint(
        "PATCH",
        "/runs/{run_id}/masks",
        edit_masks,
        "Edit the masks of the run in progress, between two frames.",
        scope="operate",
        path_model=RunPath,
        body=MaskChange,
        answer=models.MaskEditReply,
        answers_operation=True,
        statuses={
            404: "There is no such particle.",
            409: "The run is not measuring, or the version is not the newest.",
            422: "An outline cannot be used.",
        },
    ),
)
