"""Reading the instrument: status, health, metrics, settings, versions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from aiohttp import web
from pydantic import BaseModel

from daemon.api import accept, models
from daemon.api.auth import GATE, LEVELS
from daemon.api.dispatch import json_response
from daemon.api.endpoint import Call, Endpoint
from daemon.config import masked
from daemon.parts import PartState, PartStatus

_BY_WEIGHT: tuple[PartState, ...] = ("ready", "stopped", "degraded", "starting", "failed")


async def status(call: Call) -> dict[str, Any]:
    """Everything at a glance; every value is at hand, so that it never waits on a device."""
    given = call.parts.status()
    parts = [*given.get("parts", []), call.services.line()]
    run = call.parts.runs.current()
    body = {
        "state": worst(parts),
        "measuring": run is not None and run.state == "running",
        "parts": parts,
        "run": run,
        "science": call.parts.runs.live_summary(),
        "cell": cell_reply(call),
        "last_event_seq": call.parts.feed.last_seq,
        "utc": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "version": call.parts.version.get("version", ""),
    }
    return body | {name: value for name, value in given.items() if name != "parts"}


def worst(parts: Sequence[PartStatus | dict[str, Any]]) -> PartState:
    """The gravest state of any part."""
    states = [part["state"] if isinstance(part, dict) else part.state for part in parts]
    return max(states, key=_BY_WEIGHT.index, default="starting")


def cell_reply(call: Call) -> dict[str, Any]:
    """The cell as it is now."""
    line = call.parts.cell.status()
    return {"state": call.parts.cell.state, "detail": line.detail, "values": line.values}


async def healthz(call: Call) -> models.Health:
    """Answers while the event loop turns."""
    return models.Health()


async def readyz(call: Call) -> web.Response:
    """200 when the instrument can measure, 503 and what keeps it from that otherwise."""
    blocking = call.parts.ready()
    body = {"ready": not blocking, "blocking": [asdict(part) for part in blocking]}
    return json_response(body, 503 if blocking else 200)


async def metrics(call: Call) -> web.Response:
    """Prometheus text."""
    body = await call.work(call.parts.metrics_text)
    return web.Response(body=body, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})


async def config(call: Call) -> dict[str, Any]:
    """The settings in effect, secrets masked, each with where it came from."""
    settings: dict[str, Any] = {}
    origins = call.parts.settings_origins
    for name, value in masked(call.parts.settings).items():
        group = getattr(call.parts.settings, name)
        entries = {f"{name}.{key}": item for key, item in value.items()} if _is_section(group) else {name: value}
        for place, item in entries.items():
            settings[place] = {"value": item, "origin": _origin(place, origins)}
    return {"settings": settings}


def _is_section(group: Any) -> bool:
    return isinstance(group, BaseModel) and type(group).__name__.endswith("Settings")


def _origin(place: str, origins: dict[str, str]) -> str:
    """The place's own origin, or that of the first setting inside it that is not a default."""
    inside = (origin for name, origin in origins.items() if name.startswith(f"{place}.") and origin != "default")
    return origins.get(place) or next(inside, "default")


async def version(call: Call) -> dict[str, Any]:
    """Versions, and whether a token is needed."""
    return {
        "api": "v1",
        "version": "",
        "asks_for_tokens": call.request.app[GATE].asks_for_tokens,
        **call.parts.version,
    }


async def whoami(call: Call) -> dict[str, Any]:
    """What the client may do."""
    return {"actor": call.actor.name, "scopes": [name for name, level in LEVELS.items() if level <= call.actor.level]}


ENDPOINTS = (
    Endpoint(
        "GET", "/status", status, "State of every part, the run, the cell and the science.", answer=models.StatusReply
    ),
    Endpoint("GET", "/healthz", healthz, "Whether the process answers.", scope=None, answer=models.Health),
    Endpoint(
        "GET",
        "/readyz",
        readyz,
        "Whether the instrument can measure.",
        scope=None,
        answer=models.Readiness,
        statuses={503: "It cannot; `blocking` says why (the body is a Readiness here)."},
        refusal_models={503: models.Readiness},
    ),
    Endpoint("GET", "/metrics", metrics, "Prometheus metrics.", media_types=(accept.PROMETHEUS,)),
    Endpoint("GET", "/config", config, "Settings in effect and where each came from.", answer=models.ConfigReply),
    Endpoint("GET", "/version", version, "Versions.", scope=None, answer=models.VersionReply),
    Endpoint("GET", "/whoami", whoami, "What this client may do.", answer=models.ScopesReply),
)
