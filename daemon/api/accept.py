"""Choosing what to answer with, by the Accept header."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from daemon.api.media import ARROW, CSV, GZIP, HTML, JSON, NDJSON, PNG, PROMETHEUS, SSE, ZIP
from daemon.errors import ApiError, ApiReason

__all__ = [
    "ARROW", "CSV", "GZIP", "HTML", "JSON", "NDJSON", "PNG", "PROMETHEUS", "SSE", "ZIP", "NotAcceptable", "choose",
    "require_json_body",
]  # fmt: skip


class NotAcceptable(web.HTTPNotAcceptable):
    """None of the media types asked for can be given."""


def choose(request: web.Request, offered: Sequence[str]) -> str:
    """The offered media type the client prefers; the first one when it does not care.

    Raises `NotAcceptable` naming what there is.
    """
    ranges = _ranges(",".join(request.headers.getall("Accept", [])))
    if not ranges:
        return offered[0]
    best = max(offered, key=lambda media: (_quality(media, ranges), -list(offered).index(media)))
    if _quality(best, ranges) <= 0:
        raise NotAcceptable(reason=f"this can be had as {', '.join(offered)}")
    return best


def require_json_body(request: web.Request) -> None:
    """Raises `ApiError` (MEDIA_TYPE) unless the body is declared as JSON, or not declared at all."""
    declared = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if declared and declared != JSON and not declared.endswith("+json"):
        raise ApiError(ApiReason.MEDIA_TYPE, f"the body is declared as {declared[:100]}, only {JSON} is read")


def _ranges(header: str) -> list[tuple[str, float]]:
    """Media ranges with their quality; unreadable parts are left out."""
    found = []
    for part in header.split(",")[:50]:
        media, *parameters = (piece.strip().lower() for piece in part.split(";"))
        if media.count("/") == 1:
            found.append((media, _q(parameters)))
    return found


def _q(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return min(max(float(value), 0.0), 1.0)
            except ValueError:
                return 0.0
    return 1.0


def _quality(media: str, ranges: list[tuple[str, float]]) -> float:
    """Quality of the most specific range that covers the media type; 0 when none does."""
    group = media.partition("/")[0]
    for candidate in (media, f"{group}/*", "*/*"):
        matching = [quality for name, quality in ranges if name == candidate]
        if matching:
            return max(matching)
    return 0.0
