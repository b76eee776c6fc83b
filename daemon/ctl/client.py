"""Asking the daemon over HTTP, by TCP or by its Unix socket."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import aiohttp

from daemon.ctl.options import Connection
from daemon.errors import ClientError, ClientReason, InstrumentError

T = TypeVar("T")
PREFIX = "/api/v1"
POLL_S = 0.3  # an operation's progress bar moves visibly, and costs the daemon nothing
SILENCE_S = 20.0  # the feed sends a keep-alive every 5 s; four missing is a dead line
BACKOFF_S = (0.5, 1.0, 2.0, 5.0)  # a restart of the daemon takes about 5 s
MAX_LINE_BYTES = 1 << 20
TOO_MANY_REQUESTS = 429
MAX_ANSWER_BYTES = 256 << 20


class Refused(InstrumentError):
    """The daemon's own refusal: code, detail and remedy as its problem document has them."""

    def __init__(self, problem: dict[str, Any]) -> None:
        detail = problem.get("detail") or problem.get("title") or f"the daemon answered {problem.get('status')}"
        super().__init__(ClientReason.REFUSED, str(detail))
        self.problem = problem

    @property
    def code(self) -> str:
        """The daemon's code."""
        return str(self.problem.get("code") or self.reason.code)

    @property
    def remedy(self) -> str:
        """The daemon's remedy."""
        return str(self.problem.get("remedy") or self.reason.remedy)


class Client:
    """One conversation with the daemon: use it in `async with`. All methods raise `ClientError` or `Refused`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Client:
        place = self._connection
        trust = await asyncio.to_thread(_trust, place) if place.url.startswith("https://") else True
        connector = aiohttp.UnixConnector(place.socket) if place.socket else aiohttp.TCPConnector(ssl=trust)
        headers = {"Authorization": f"Bearer {place.token}"} if place.token else {}
        self._session = aiohttp.ClientSession(
            connector=connector,
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=None, connect=place.timeout_s, sock_read=place.timeout_s),
            read_bufsize=MAX_LINE_BYTES,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    def _url(self, path: str) -> str:
        """`path` may be a whole path, as the daemon's own links are."""
        base = "http://localhost" if self._connection.socket else self._connection.url.rstrip("/").removesuffix(PREFIX)
        return base + (path if path.startswith(PREFIX) else PREFIX + path)

    @asynccontextmanager
    async def _answer(self, method: str, path: str, **request: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        """The daemon's answer, when it is not a refusal."""
        assert self._session is not None, "use the client in 'async with'"
        with self._sentences():
            async with self._session.request(method, self._url(path), **request) as response:
                if response.status >= 400:
                    raise Refused(await _problem(response))
                yield response

    @contextmanager
    def _sentences(self) -> Iterator[None]:
        """Failures of the network as what they mean to the operator."""
        name = self._connection.name
        try:
            yield
        except TimeoutError as error:
            detail = f"{name} did not answer within {self._connection.timeout_s:g} s"
            raise ClientError(ClientReason.TIMEOUT, detail) from error
        except aiohttp.ClientConnectorCertificateError as error:
            why = getattr(error.certificate_error, "verify_message", "") or str(error.certificate_error)
            detail = f"{name} shows a certificate that is not trusted: {why}"
            raise ClientError(ClientReason.UNTRUSTED, detail) from error
        except aiohttp.ClientConnectorSSLError as error:
            raise ClientError(ClientReason.UNTRUSTED, f"{name} cannot be spoken to by TLS: {error.os_error}") from error
        except aiohttp.ClientConnectorError as error:
            if isinstance(error.os_error, PermissionError):
                raise ClientError(ClientReason.DENIED, f"{name} may not be opened by this user") from error
            detail = f"the daemon is not running: nothing answers at {name}"
            raise ClientError(ClientReason.NOT_RUNNING, detail) from error
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, aiohttp.ClientPayloadError) as error:
            raise ClientError(ClientReason.NOT_RUNNING, f"the daemon at {name} hung up") from error
        except (aiohttp.ClientError, ValueError) as error:
            why = " ".join(str(error).split())[:200]
            raise ClientError(ClientReason.BAD_ANSWER, f"{name} does not answer as photometryd does: {why}") from error

    async def get(self, path: str, **query: Any) -> dict[str, Any]:
        """The JSON at `path`; parameters that are None are left out."""
        async with self._answer("GET", path, params=_given(query), headers={"Accept": "application/json"}) as response:
            return await _json(response)

    async def send(self, method: str, path: str, body: Any = None, **query: Any) -> dict[str, Any]:
        """The answer to a request that changes something; an operation is returned as it stands."""
        async with self._answer(method, path, params=_given(query), json=body) as response:
            return await _json(response)

    async def finish(self, answer: dict[str, Any], tell: Callable[[float, str], None] | None = None) -> dict[str, Any]:
        """The result of an answer that may be an operation under way; `tell(progress, line)` hears of its log.

        Raises `Refused` when the operation failed or was cancelled.
        """
        heard = 0
        while "operation_id" in answer:
            log = answer.get("log") or []
            for line in log[heard:]:
                if tell is not None:
                    tell(float(answer.get("progress") or 0.0), str(line))
            heard = max(heard, len(log))
            if answer.get("state") in ("pending", "running"):
                await asyncio.sleep(POLL_S)
                answer = await self.get(answer.get("url") or f"/operations/{answer['operation_id']}")
                continue
            if answer.get("state") != "done":
                raise Refused(answer.get("error") or {"detail": f"the operation was {answer.get('state')}"})
            return answer.get("result") or {}
        return answer

    async def download(self, path: str, out: Path, media_type: str, **query: Any) -> None:
        """Write what is at `path` to `out`, whole or not at all; an operation is waited for and its file taken.

        Raises `OSError` when `out` cannot be written.
        """
        async with self._answer("GET", path, params=_given(query), headers={"Accept": media_type}) as response:
            if response.status != 202:
                if response.content_type != media_type:
                    raise _not_ours(self._connection.name, f"{response.content_type} instead of {media_type}")
                await _write_whole(response, out)
                return
            answer = await _json(response)
        result = await self.finish(answer)
        await self.download(str(result.get("file_url", "")), out, media_type)

    async def events(self, after: int = 0) -> AsyncGenerator[dict[str, Any], None]:
        """The events there are with a higher sequence number than `after`, oldest first."""
        async with aclosing(self._lines("/events", {"after": str(after)}, follow=False)) as lines:
            async for event in lines:
                if event is not None:
                    yield event

    async def follow_events(
        self, after: int = 0, lost: Callable[[InstrumentError], None] | None = None
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Events for ever: resumes behind the last one seen whenever the connection ends; `lost` hears why.

        Raises when the very first connection fails, and when the daemon refuses for good.
        """
        feed = self._resumed(lambda: self._lines("/events", {"after": str(after)}, follow=True), lost)
        async with aclosing(feed) as events:
            async for event in events:
                after = max(after, int(event.get("seq") or 0))
                yield event

    async def follow_logs(
        self, level: str, since: datetime, lost: Callable[[InstrumentError], None] | None = None
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Lines of the log from `since` on, for ever, resumed as `follow_events` are; none comes twice."""
        last, seen = since.isoformat(), set[tuple[str, ...]]()
        feed = self._resumed(lambda: self._lines("/logs", {"level": level, "since": last}, follow=True), lost)
        async with aclosing(feed) as entries:
            async for entry in entries:
                key = tuple(str(entry.get(name, "")) for name in ("utc", "thread", "logger", "message"))
                utc = key[0]
                if key in seen:
                    continue  # of the moment at which the connection was lost
                if utc and utc != last:
                    last = utc
                    seen.clear()
                seen.add(key)
                yield entry

    async def _resumed(
        self,
        connect: Callable[[], AsyncGenerator[dict[str, Any] | None, None]],
        lost: Callable[[InstrumentError], None] | None,
    ) -> AsyncGenerator[dict[str, Any], None]:
        """What `connect` gives, connected anew whenever that ends."""
        failures, connected, told = 0, False, False
        while True:
            try:
                async with aclosing(connect()) as lines:
                    async for line in lines:
                        failures, connected, told = 0, True, False
                        if line is not None:
                            yield line
            except (ClientError, Refused) as error:
                if not connected or not _passes(error):
                    raise
                if lost is not None and not told:
                    lost(error)
                told = True
            await asyncio.sleep(BACKOFF_S[min(failures, len(BACKOFF_S) - 1)])
            failures += 1

    async def _lines(
        self, path: str, query: dict[str, str], *, follow: bool
    ) -> AsyncGenerator[dict[str, Any] | None, None]:
        """The feed on one connection: None once connected and for each keep-alive."""
        read_s = SILENCE_S if follow else self._connection.timeout_s
        timeout = aiohttp.ClientTimeout(total=None, connect=self._connection.timeout_s, sock_read=read_s)
        query = query | {"follow": "true" if follow else "false"}
        accept = {"Accept": "application/x-ndjson"}
        async with self._answer("GET", path, params=query, headers=accept, timeout=timeout) as response:
            yield None
            async for line in response.content:
                yield _event(line, self._connection.name) if line.strip() else None


def _trust(place: Connection) -> ssl.SSLContext:
    """Whose certificates count. Raises `ClientError`."""
    try:
        return ssl.create_default_context(cafile=place.ca_file)
    except (OSError, ssl.SSLError) as error:
        detail = f"'{place.ca_file}' holds no certificates: {error}"
        raise ClientError(ClientReason.BAD_FILE, detail) from error


def _passes(error: ClientError | Refused) -> bool:
    """Whether trying again can help: the daemon is restarting, or too busy for the moment."""
    if isinstance(error, Refused):
        status = int(error.problem.get("status") or 0)
        return status >= 500 or status == TOO_MANY_REQUESTS
    return error.reason in (ClientReason.NOT_RUNNING, ClientReason.TIMEOUT)


def _given(query: dict[str, Any]) -> dict[str, str]:
    return {name.rstrip("_"): str(value) for name, value in query.items() if value is not None}


async def _json(response: aiohttp.ClientResponse) -> dict[str, Any]:
    """The answer, which is always an object. Raises `ValueError`."""
    if (response.content_length or 0) > MAX_ANSWER_BYTES:
        raise ValueError("the answer is too large")
    document = json.loads(await response.read())
    if not isinstance(document, dict):
        raise ValueError(f"the answer is a {type(document).__name__}")
    return document


async def _problem(response: aiohttp.ClientResponse) -> dict[str, Any]:
    """The problem document of a refusal; a bare status where something else answers."""
    try:
        document = json.loads(await response.content.read(1 << 20))
    except ValueError:
        document = None
    if isinstance(document, dict):
        return document
    raise ValueError(f"HTTP status {response.status}")


def _event(line: bytes, name: str) -> dict[str, Any]:
    event = json.loads(line)
    if not isinstance(event, dict):
        raise _not_ours(name, "a line of the feed is no event")
    return event


def _not_ours(name: str, what: str) -> ClientError:
    return ClientError(ClientReason.BAD_ANSWER, f"{name} does not answer as photometryd does: {what}")


async def _write_whole(response: aiohttp.ClientResponse, out: Path) -> None:
    partial = out.with_name(f".{out.name}.partial")
    try:
        file = await asyncio.to_thread(partial.open, "wb")
        try:
            async for piece in response.content.iter_chunked(1 << 18):
                await asyncio.to_thread(file.write, piece)
        finally:
            await asyncio.to_thread(file.close)
        await asyncio.to_thread(partial.replace, out)
    finally:
        await asyncio.to_thread(partial.unlink, missing_ok=True)


def ask(connection: Connection, question: Callable[[Client], Awaitable[T]]) -> T:
    """Run one conversation from synchronous code."""

    async def conversation() -> T:
        async with Client(connection) as client:
            return await question(client)

    return asyncio.run(conversation())
