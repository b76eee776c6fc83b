"""Clips: a particle's pixels before and after a step."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from aiohttp import web
from pydantic import Field

from daemon.api import accept
from daemon.api.endpoint import Call, Endpoint
from daemon.api.picture import strip_png
from daemon.api.runs import RunPath
from daemon.errors import RunError, RunReason
from daemon.store.reader import RunReader

HEADER_TIMES = 32  # a clip has eight looks


class ClipPath(RunPath):
    """A clip's path."""

    clip_id: Annotated[int, Field(ge=1, le=2**62)]


async def clip_png(call: Call) -> web.Response:
    """One clip as a picture, its looks side by side; their times are in the header `X-Times-S`."""
    path = (await call.stored_run()).path

    def read() -> tuple[bytes, np.ndarray]:
        with RunReader(path) as reader:
            clip = reader.clip(call.path.clip_id)
        if clip is None:
            raise RunError(RunReason.NOT_FOUND, f"run '{call.path.run_id}' has no clip {call.path.clip_id}")
        return strip_png(clip.pixels), clip.t_s

    body, t_s = await call.work(read)
    headers = {"X-Times-S": ",".join(f"{each:.3f}" for each in t_s[:HEADER_TIMES])}
    return web.Response(body=body, content_type=accept.PNG, headers=headers)


ENDPOINTS = (
    Endpoint(
        "GET",
        "/runs/{run_id}/clips/{clip_id}",
        clip_png,
        "A clip as a picture, its looks side by side.",
        path_model=ClipPath,
        media_types=(accept.PNG,),
    ),
)
