"""Answering with an operation: at once when it is done within a second, 202 otherwise."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from daemon.api.dispatch import code_of, json_response
from daemon.api.endpoint import PREFIX, Call
from daemon.api.files import FileAnswer
from daemon.api.operations import Job, Work, in_thread
from daemon.api.problems import response
from daemon.errors import ApiError, ApiReason, StoreError, StoreReason

KEY_HEADER = "Idempotency-Key"
MAX_KEY_CHARS = 200
FOLDER, FOLDER_PREFIX = "tmp", "archive-"


async def begin(call: Call, kind: str, work: Work, key: str = "") -> tuple[Job, bool]:
    """Start the work of this request, or join what the same key started; True when it is new.

    `key` stands in when the client sends none: requests that are equal by nature join without one.
    """
    given = call.request.headers.get(KEY_HEADER, "")
    if len(given) > MAX_KEY_CHARS:
        raise ApiError(ApiReason.BAD_REQUEST, f"{KEY_HEADER} is longer than {MAX_KEY_CHARS} characters")
    scope = call.endpoint.scope or "read"
    full_key = f"{call.actor.name} given {given}" if given else key and f"{call.actor.name} made {key}"
    raw = await call.request.read() if call.endpoint.body is not None else b""
    fingerprint = sha256(f"{call.request.method} {call.request.path_qs}\n".encode() + raw).hexdigest()
    return call.services.operations.begin(
        kind, _audited(call, kind, work), actor=call.actor.name, scope=scope, key=full_key, fingerprint=fingerprint
    )


def _audited(call: Call, kind: str, work: Work) -> Work:
    """`work` that leaves a row when it fails after its request was answered; before, the refusal has one."""

    async def audited(job: Job) -> dict[str, Any] | None:
        try:
            return await work(job)
        except Exception as error:
            if job.accepted and call.endpoint.scope != "read":
                call.services.auditor.refused(call.actor.name, kind, code_of(error))
            raise

    return audited


async def answer_soon(call: Call, job: Job) -> web.StreamResponse:
    """200 with the result when it is there within a second, else 202; a failure as its problem document."""
    if not await call.services.operations.wait(job):
        return accepted(job)
    return finished_answer(call, job)


def finished_answer(call: Call, job: Job) -> web.StreamResponse:
    """A finished job as the answer to the request that started it."""
    if job.failure is not None:
        raise job.failure
    if job.error is not None:
        return response(job.error | {"instance": call.request.path})
    if job.state == "cancelled":
        raise ApiError(ApiReason.CONFLICT, f"operation {job.operation_id} was cancelled")
    return json_response(job.result, headers={"Location": url_of(job)})


def accepted(job: Job) -> web.Response:
    """202 and where to look."""
    job.accepted = True
    return json_response(reply(job), 202, {"Location": url_of(job)})


def url_of(job: Job) -> str:
    """Where the operation is."""
    return f"{PREFIX}/operations/{job.operation_id}"


def reply(job: Job) -> dict[str, Any]:
    """The operation as answered."""
    view = job.view
    body = {name: getattr(view, name) for name in view.__dataclass_fields__} | {"url": url_of(job)}
    if view.result and "run_id" in view.result:
        body["run_id"] = view.result["run_id"]
    return body


async def archive(
    call: Call, kind: str, make: Callable[[Job, Path], dict[str, Any] | None], *, name: str, media_type: str, key: str
) -> web.StreamResponse:
    """Answer with a file that `make` writes in a thread: at once, or through an operation that names its URL.

    Repeating the same request joins the work that is under way and fetches the file once it is there. `make` gets a
    path in a directory of its own, on the file system of the state directory (a large archive does not fit in memory,
    and /tmp may be memory); what it returns is told in the operation's result.
    """
    if call.head_only:
        return web.Response(content_type=media_type)
    settings = call.parts.settings.store

    def in_directory(job: Job) -> dict[str, Any]:
        check_space(settings.state_dir, settings.min_free_mb)
        parent = settings.state_dir / FOLDER
        parent.mkdir(exist_ok=True)
        job.file = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir=parent)) / name
        return make(job, job.file) or {}

    async def work(job: Job) -> dict[str, Any]:
        told = await in_thread(job, call.services.slow_workers, partial(in_directory, job))
        size = await call.work(lambda: job.file.stat().st_size if job.file else 0)
        made = {"file_url": f"{url_of(job)}/file", "name": name, "media_type": media_type, "size_bytes": size}
        return made | told

    job, _ = await begin(call, kind, work, key)
    if not await call.services.operations.wait(job):
        return accepted(job)
    if job.state != "done":
        return finished_answer(call, job)
    call.services.operations.forget_key(job)
    return await send_file(call, job)


async def send_file(call: Call, job: Job) -> web.StreamResponse:
    """The file a job made. Raises `ApiError` when there is none, or none yet."""
    if not job.finished:
        raise ApiError(ApiReason.NOT_FINISHED, f"operation {job.operation_id} is at {job.progress:.0%}")
    if job.file is None or job.result is None:
        raise ApiError(ApiReason.NOT_FOUND, f"operation {job.operation_id} made no file")
    headers = {
        "Content-Type": job.result["media_type"],
        "Content-Disposition": f'attachment; filename="{job.result["name"]}"',
    }
    return _WholeFile(job, headers | job.file_headers)


class _WholeFile(FileAnswer):
    """Tells the job when the last byte was handed to the network; parts and unchanged answers do not count."""

    def __init__(self, job: Job, headers: dict[str, str]) -> None:
        assert job.file is not None
        super().__init__(job.file, headers=headers)
        self._on_fetched = job.on_fetched

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Send everything."""
        writer = await super().prepare(request)
        gone = request.transport is None or request.transport.is_closing()
        if self._on_fetched is not None and self.status == 200 and request.method == "GET" and not gone:
            await self._on_fetched()
        return writer


def remove_leftovers(state_dir: Path) -> None:
    """Remove archives that an earlier life of the service could not. Blocking."""
    for left in (state_dir / FOLDER).glob(f"{FOLDER_PREFIX}*"):
        shutil.rmtree(left, ignore_errors=True)


def check_space(directory: Path, min_free_mb: int) -> None:
    """Raises `StoreError` (DISK_FULL) rather than let an archive take the space a run needs. Blocking."""
    free_mb = shutil.disk_usage(directory).free // 1_000_000
    if free_mb < min_free_mb:
        raise StoreError(
            StoreReason.DISK_FULL, f"{free_mb} MB are free at {directory}, store.min_free_mb keeps {min_free_mb}"
        )
