"""Every refusal and failure as an RFC 9457 problem document with our stable code and remedy."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable
from typing import Any

from aiohttp import web
from pydantic import ValidationError

from daemon.api.jsonio import dumps
from daemon.api.limits import TooManyRequestsError
from daemon.errors import (
    ApiError,
    ApiReason,
    CameraReason,
    CellReason,
    ConfigReason,
    EngineReason,
    ExperimentReason,
    InstrumentError,
    MaskReason,
    NamedFieldsError,
    Reason,
    RecordingReason,
    RunReason,
    StoreReason,
    TokenReason,
)

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 2  # an engine restart takes about as long
MAX_DETAIL_CHARS = 500  # hostile input is echoed no further

_BY_ENUM: dict[type[Reason], int] = {
    CameraReason: 503,
    CellReason: 503,
    ConfigReason: 400,
    EngineReason: 503,
    ExperimentReason: 422,
    MaskReason: 422,
    RecordingReason: 422,
    RunReason: 409,
    StoreReason: 409,
    TokenReason: 409,
}
_BY_REASON: dict[Reason, int] = {
    ApiReason.UNAUTHORISED: 401,
    ApiReason.FORBIDDEN: 403,
    ApiReason.NOT_FOUND: 404,
    ApiReason.METHOD: 405,
    ApiReason.BAD_REQUEST: 400,
    ApiReason.TOO_LARGE: 413,
    ApiReason.CROSS_SITE: 403,
    ApiReason.MEDIA_TYPE: 415,
    ApiReason.CONFLICT: 422,
    ApiReason.NOT_FINISHED: 409,
    ApiReason.BUSY: 503,
    ApiReason.TOO_MANY_REQUESTS: 429,
    ApiReason.TOO_SLOW: 408,
    ApiReason.UNAVAILABLE: 503,
    CameraReason.BAD_SETTING: 422,
    CellReason.READ_ONLY: 409,
    CellReason.REFUSED: 422,
    EngineReason.BUSY: 409,
    ExperimentReason.BUSY: 409,
    ExperimentReason.NOT_RUNNING: 409,
    MaskReason.NO_PARTICLE: 404,
    MaskReason.NO_VERSION: 404,
    MaskReason.TOO_MANY_EDITS: 413,
    MaskReason.STALE: 409,
    MaskReason.BASELINE: 409,
    RunReason.NOT_FOUND: 404,
    RunReason.BAD_RECIPE: 400,
    RunReason.DELETED: 410,
    StoreReason.CORRUPT: 500,
    StoreReason.NO_PARTICLE: 404,
    StoreReason.DISK_FULL: 507,
    StoreReason.NOT_WRITABLE: 507,
    StoreReason.OVERLOADED: 503,
    StoreReason.BACKUP_FULL: 507,
    StoreReason.BACKUP_FAILED: 507,
    StoreReason.BACKUP_LATE: 504,
    TokenReason.DAMAGED: 503,
}
_BY_HTTP_STATUS: dict[int, ApiReason] = {
    400: ApiReason.BAD_REQUEST,
    401: ApiReason.UNAUTHORISED,
    403: ApiReason.FORBIDDEN,
    404: ApiReason.NOT_FOUND,
    405: ApiReason.METHOD,
    406: ApiReason.MEDIA_TYPE,
    413: ApiReason.TOO_LARGE,
    415: ApiReason.MEDIA_TYPE,
}


def fields_error(error: ValidationError, root: str = "body") -> NamedFieldsError:
    """A pydantic error in our shape."""
    return NamedFieldsError(
        [
            {"field": ".".join(str(part) for part in item["loc"]) or root, "detail": item["msg"][:MAX_DETAIL_CHARS]}
            for item in error.errors(include_url=False, include_context=False, include_input=False)[:20]
        ]
    )


def http_status(reason: Reason) -> int:
    """The HTTP status a reason answers with; 500 only where the instrument itself is at fault."""
    return _BY_REASON.get(reason, _BY_ENUM.get(type(reason), 500))


def document(error: InstrumentError, instance: str = "", status: int | None = None) -> dict[str, Any]:
    """The problem document of an error; also what a failed operation carries."""
    status = status or http_status(error.reason)
    body: dict[str, Any] = {
        "type": f"urn:photometryd:problem:{error.code}",
        "title": error.code.replace(".", ": ").replace("_", " "),
        "status": status,
        "detail": error.detail[:MAX_DETAIL_CHARS],
        "code": error.code,
        "remedy": error.remedy,
    }
    if instance:
        body["instance"] = instance[:MAX_DETAIL_CHARS]
    if isinstance(error, NamedFieldsError):
        body["errors"] = error.errors
    return body


def unexpected(what: str) -> dict[str, Any]:
    """Log the exception being handled and return the problem document that points at the log line."""
    log_id = secrets.token_hex(4)
    log.exception("%s failed (log id %s)", what, log_id)
    error = ApiError(ApiReason.INTERNAL, f"an unexpected error happened; log id {log_id}")
    return document(error) | {"log_id": log_id}


def response(body: dict[str, Any], headers: Iterable[tuple[str, str]] = ()) -> web.Response:
    """A problem document as an answer, with the headers its status calls for."""
    answer = web.Response(status=body["status"], body=dumps(body), content_type=MEDIA_TYPE)
    answer.headers.extend(list(headers))
    if body["status"] == 401 and "WWW-Authenticate" not in answer.headers:
        answer.headers["WWW-Authenticate"] = 'Bearer realm="photometryd"'
    if body["status"] == 503 and "Retry-After" not in answer.headers:
        answer.headers["Retry-After"] = str(RETRY_AFTER_S)
    return answer


def of_status(status: int, request: web.BaseRequest, otherwise: str) -> dict[str, Any]:
    """What aiohttp refuses by a status alone (unknown path, wrong method, too large a body) as a problem document."""
    details = {
        404: f"there is nothing at {request.path}",
        405: f"{request.method} is not possible at {request.path}",
        413: "the body is larger than api.max_body_bytes allows",
        416: "the file has no such range",
        417: "of Expect only 100-continue is understood",
    }
    reason = _BY_HTTP_STATUS.get(status, ApiReason.BAD_REQUEST)
    return document(ApiError(reason, details.get(status, otherwise)), request.path, status)


def from_http(error: web.HTTPException, request: web.BaseRequest) -> web.Response:
    """An exception of aiohttp as a problem document."""
    kept = [(name, error.headers[name]) for name in ("Allow", "Location") if name in error.headers]
    return response(of_status(error.status, request, error.reason), kept)


def _wait(error: InstrumentError) -> list[tuple[str, str]]:
    """How long, where the error knows."""
    return [("Retry-After", str(error.retry_after_s))] if isinstance(error, TooManyRequestsError) else []


@web.middleware
async def problem_middleware(request: web.Request, handler: Any) -> web.StreamResponse:
    """Outermost: whatever is raised below becomes a problem document, never a traceback."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return from_http(error, request)
    except InstrumentError as error:
        return response(document(error, request.path), _wait(error))
    except ConnectionError:  # the client went away: nobody is left to answer
        raise
    except Exception:  # noqa: BLE001 - the last line of defence; logged with its traceback
        return response(unexpected(f"{request.method} {request.path}"))
