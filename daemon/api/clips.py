"""Clips: a particle's pixels before and after a step."""

from __future__ import annotations

from typing import Annotated

from aiohttp import web
from pydantic import Field

from daemon.api import accept
from daemon.api.endpoint import Call, Endpoint
from daemon.api.runs import RunPath


class ClipPath(RunPath):
    """A clip's path."""

    clip_id: Annotated[int, Field(ge=1, le=2**62)]


async def clip_png(call: Call) -> web.Response:
    """One clip as a picture, its looks side by side; their times are in the header `X-Times-S`."""
    return await call.read("clip", accept.PNG, clip_id=call.path.clip_id)


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
