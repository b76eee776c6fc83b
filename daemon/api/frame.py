"""The live frame."""

from __future__ import annotations

import numpy as np
from aiohttp import web
from pydantic import Field

from daemon.api import accept
from daemon.api.endpoint import Call, Endpoint, Query
from daemon.api.picture import Overlay, Particles, png
from daemon.errors import ApiError, ApiReason, RunError, RunReason
from daemon.parts import Preview

MAX_PIXELS = 40_000_000


class FrameQuery(Query):
    """How to draw the frame."""

    overlay: Overlay = Field(default="none", description="What to draw over the frame.")
    scale: float = Field(default=1.0, ge=0.05, le=4.0, description="Size of the picture over that of the frame.")


async def frame_png(call: Call) -> web.Response:
    """The newest frame; its number and time are in the headers."""
    if call.head_only:
        return web.Response(content_type=accept.PNG)
    preview = await call.parts.engine.preview()
    if preview is None:
        raise ApiError(ApiReason.UNAVAILABLE, "no frame has come from the camera yet")
    overlay, scale = call.query.overlay, call.query.scale
    if preview.image.size * scale**2 > MAX_PIXELS:
        raise ApiError(ApiReason.TOO_LARGE, f"scale: the picture would have more than {MAX_PIXELS} pixels")
    particles = None if overlay == "none" else _particles(call, preview)
    body = await call.work(png, preview.image, overlay, particles, scale)
    headers = {
        "X-Frame": str(preview.frame),
        "X-Frame-Host-Time-S": f"{preview.host_t_s:.6f}",
        "X-Overlay": overlay,
    }
    return web.Response(body=body, content_type=accept.PNG, headers=headers)


def _particles(call: Call, preview: Preview) -> Particles:
    """The particles of the run in progress. Raises `RunError` (NOT_RUNNING) while there are none."""
    runs = call.parts.runs
    labels, states, soc = runs.live_labels(), runs.live_states(), runs.live_soc()
    if labels is None or labels.shape != preview.image.shape:
        raise RunError(RunReason.NOT_RUNNING, "overlays need a run whose particles have been found")
    count = int(labels.max(initial=0))
    return Particles(
        labels=labels,
        states=_padded(states, count, -1),
        soc=_padded(soc, count, np.nan),
        drift_y_px=preview.drift_y_px,
        drift_x_px=preview.drift_x_px,
    )


def _padded(values: np.ndarray | None, count: int, unknown: float) -> np.ndarray:
    """Exactly `count` values, the missing ones unknown."""
    padded = np.full(count, unknown, np.asarray(unknown).dtype if values is None else values.dtype)
    if values is not None:
        padded[: len(values)] = values[:count]
    return padded


ENDPOINTS = (
    Endpoint(
        "GET",
        "/frame.png",
        frame_png,
        "The newest frame, with particles drawn over it.",
        query=FrameQuery,
        media_types=(accept.PNG,),
        statuses={409: "An overlay was asked for without a run.", 503: "No frame yet."},
    ),
)
