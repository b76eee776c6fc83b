"""The instrument over its HTTP API; runs unchanged on CPython 3.11+ and MicroPython 1.25+.

    async with Instrument("192.168.1.20", token="...") as instrument:
        print((await instrument.get("/status"))["state"])
        async with instrument.events() as events:
            async for event in events:
                print(event["kind"])

Talks through asyncio streams, or through an aiohttp `ClientSession` when one is given (micropython-lib's too). Every
wait has a deadline and every answer a bound. Nothing is imported but what both interpreters have: copying this file to
a board is enough.
"""

import asyncio
import errno
import json

PREFIX = "/api/v1"
DEADLINE_S = 10.0  # the slowest of the daemon's own answers take about 2 s
SILENCE_S = 20.0  # the feed sends a keep-alive every 5 s; four missing is a dead line
POLL_S = 0.5
BACKOFF_S = (0.5, 1.0, 2.0, 5.0)  # a restart of the daemon takes about 5 s
MAX_ANSWER_BYTES = 262144  # a status is 5 kB; a board has 200 kB or more
MAX_HEADERS = 50
PLAIN = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"


class Refused(Exception):
    """The daemon says no: `status` of HTTP, and `code`, `detail`, `remedy` of its problem document."""

    def __init__(self, status: int, problem: dict) -> None:
        self.status = status
        self.code = problem.get("code") or f"http.{status}"
        self.detail = problem.get("detail") or problem.get("title") or f"HTTP status {status}"
        self.remedy = problem.get("remedy") or ""
        super().__init__(f"{self.code}: {self.detail}")


class Unreachable(Exception):
    """No answer: `reason` is `refused` (nothing listens), `timeout`, `cut` (it hung up) or `garbled` (not ours)."""

    def __init__(self, reason: str, detail: str) -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(f"{reason}: {detail}")


class Instrument:
    """One instrument. Requests may run side by side; all methods raise `Refused` or `Unreachable`."""

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 8470,
        token: str = "",
        deadline_s: float = DEADLINE_S,
        session=None,
        base_url: str = "",
    ) -> None:
        """`session`: an aiohttp `ClientSession`, used and never closed; `base_url` then replaces host and port.

        A session serves one request at a time, and a feed is one: give the feed an `Instrument` of its own.
        """
        self.deadline_s = deadline_s
        self._host = host
        self._headers = {"Authorization": "Bearer " + token} if token else {}
        self._link: _Streams | _Session = _Streams(host, port)
        if session is not None:
            self._link = _Session(session, base_url or f"http://{host}:{port}")

    async def __aenter__(self) -> "Instrument":
        return self

    async def __aexit__(self, kind, error, trace) -> None:
        return None

    async def get(self, path: str, query: dict | None = None, deadline_s: float | None = None) -> dict:
        """The JSON at `path`, such as `/status`."""
        return await self._bounded(self._ask("GET", path + _query(query), None), deadline_s)

    async def send(self, method: str, path: str, body: object = None, deadline_s: float | None = None) -> dict:
        """The answer to a request that changes something; an operation is returned as it stands."""
        return await self._bounded(self._ask(method, path, body), deadline_s)

    async def finish(self, answer: dict, deadline_s: float) -> dict:
        """The result of an answer that may be an operation under way. `Refused` when that failed."""
        return await self._bounded(self._finished(answer), deadline_s)

    async def cell_off(self) -> dict:
        """Switch the cell off: always allowed, answered first."""
        return await self.send("POST", "/cell/off", {})

    def events(self, after: int = 0, follow: bool = True, silence_s: float = SILENCE_S) -> "Events":
        """The events behind sequence number `after`, oldest first; for ever when `follow`. Use it in `async with`."""
        return Events(self, after, follow, silence_s)

    async def _bounded(self, work, deadline_s: float | None) -> dict:
        bound_s = self.deadline_s if deadline_s is None else deadline_s
        try:
            return await asyncio.wait_for(work, bound_s)
        except asyncio.TimeoutError:
            raise Unreachable("timeout", f"{self._host} did not answer within {bound_s:g} s")

    async def _ask(self, method: str, path: str, body: object) -> dict:
        headers = {"Accept": "application/json"}
        headers.update(self._headers)
        payload = b""
        if body is not None:
            payload = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        answer = await self._link.open(method, _whole(path), headers, payload)
        try:
            raw = await answer.body()
        finally:
            await answer.close()
        if answer.status >= 400:
            raise Refused(answer.status, _problem(raw))
        return _document(raw)

    async def _finished(self, answer: dict) -> dict:
        while "operation_id" in answer:
            if answer.get("state") in ("pending", "running"):
                await asyncio.sleep(POLL_S)
                answer = await self._ask("GET", answer["url"], None)
                continue
            if answer.get("state") != "done":
                raise Refused(
                    200, answer.get("error") or {"detail": "the operation was " + answer.get("state", "lost")}
                )
            return answer.get("result") or {}
        return answer


class Events:
    """Events as `async for` gives them; connects again behind the last one seen whenever a following line ends.

    A connection that fails before the first success, and a refusal, end it with `Unreachable` or `Refused`.
    """

    def __init__(self, instrument: Instrument, after: int, follow: bool, silence_s: float) -> None:
        self.last_seq = after
        self._instrument = instrument
        self._follow = follow
        self._silence_s = silence_s
        self._answer: _StreamAnswer | _SessionAnswer | None = None
        self._connected = False
        self._failures = 0

    async def __aenter__(self) -> "Events":
        return self

    async def __aexit__(self, kind, error, trace) -> None:
        await self.close()

    def __aiter__(self) -> "Events":
        return self

    async def __anext__(self) -> dict:
        while True:
            try:
                event = await self._next()
            except Unreachable:
                await self.close()
                if not (self._follow and self._connected):
                    raise
                event = None
            if event is not None:
                return event
            if not self._follow:
                await self.close()
                raise StopAsyncIteration
            await asyncio.sleep(BACKOFF_S[min(self._failures, len(BACKOFF_S) - 1)])
            self._failures += 1

    async def close(self) -> None:
        """Hang up; safe to repeat."""
        answer, self._answer = self._answer, None
        if answer is not None:
            await answer.close()

    async def _next(self) -> dict | None:
        """The next event; None when the line ended."""
        if self._answer is None:
            await self._open()
        while True:
            line = await self._line(self._answer)
            if not line.endswith(b"\n"):
                await self.close()
                return None
            if line.strip():
                event = _document(line)
                self.last_seq = event.get("seq") or self.last_seq
                self._failures = 0
                return event

    async def _open(self) -> None:
        """Connect behind the last event seen."""
        instrument = self._instrument
        headers = {"Accept": "application/x-ndjson"}
        headers.update(instrument._headers)
        path = f"/events?after={self.last_seq}&follow=" + ("true" if self._follow else "false")
        opening = instrument._link.open("GET", _whole(path), headers, b"")
        try:
            answer: _StreamAnswer | _SessionAnswer = await asyncio.wait_for(opening, instrument.deadline_s)
            if answer.status >= 400:
                await self._refuse(answer)
        except asyncio.TimeoutError:
            raise Unreachable("timeout", f"the feed did not begin within {instrument.deadline_s:g} s")
        self._answer = answer
        self._connected = True

    async def _refuse(self, answer) -> None:
        try:
            raw = await asyncio.wait_for(answer.body(), self._instrument.deadline_s)
        finally:
            await answer.close()
        raise Refused(answer.status, _problem(raw))

    async def _line(self, answer) -> bytes:
        try:
            return await asyncio.wait_for(answer.line(), self._silence_s)
        except asyncio.TimeoutError:
            raise Unreachable("timeout", f"the feed was silent for {self._silence_s:g} s")


class _Streams:
    """Requests of HTTP/1.0, a connection each: no chunks, and nothing shared between two at once."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port

    async def open(self, method: str, path: str, headers: dict, payload: bytes) -> "_StreamAnswer":
        where = f"{self._host}:{self._port}"
        try:
            reader, writer = await asyncio.open_connection(self._host, self._port)
        except OSError:
            raise Unreachable("refused", "nothing listens at " + where)
        answer = _StreamAnswer(reader, writer)
        try:
            lines = [f"{method} {path} HTTP/1.0", "Host: " + where, f"Content-Length: {len(payload)}"]
            lines += [f"{name}: {headers[name]}" for name in headers]
            writer.write(("\r\n".join(lines) + "\r\n\r\n").encode() + payload)
            await writer.drain()
            await answer.head()
            return answer
        except asyncio.TimeoutError:
            await answer.close()
            raise
        except OSError as error:  # a closed port shows only now on MicroPython
            await answer.close()
            if error.errno == errno.ECONNRESET:
                raise Unreachable("cut", "the line ended")
            raise Unreachable("refused", "nothing listens at " + where)
        except BaseException:
            await answer.close()
            raise


class _StreamAnswer:
    """An answer under way; `close` in any case: on MicroPython only waiting for the close gives the socket back."""

    def __init__(self, reader, writer) -> None:
        self.status = 0
        self._reader = reader
        self._writer = writer
        self._length = -1

    async def head(self) -> None:
        """Read status and headers."""
        first = (await self._readline()).split()
        if len(first) < 2 or not first[0].startswith(b"HTTP/1.") or not first[1].isdigit():
            raise Unreachable("garbled" if first else "cut", "the answer does not begin as HTTP does")
        self.status = int(first[1])
        for _ in range(MAX_HEADERS):
            line = await self._readline()
            if not line.strip():
                return
            name, _, value = line.partition(b":")
            if name.strip().lower() == b"content-length":
                self._length = _number(value)
        raise Unreachable("garbled", f"the answer has more than {MAX_HEADERS} headers")

    async def line(self) -> bytes:
        """A line with its end; without one where the answer ended."""
        return await self._readline()

    async def body(self) -> bytes:
        """The rest of the answer, whole."""
        if self._length > MAX_ANSWER_BYTES:
            raise Unreachable("garbled", f"the answer is longer than {MAX_ANSWER_BYTES} bytes")
        pieces = []
        size = 0
        while self._length < 0 or size < self._length:
            piece = await self._read(4096)
            if not piece:
                break
            pieces.append(piece)
            size += len(piece)
            if size > MAX_ANSWER_BYTES:
                raise Unreachable("garbled", f"the answer is longer than {MAX_ANSWER_BYTES} bytes")
        if size < self._length:
            raise Unreachable("cut", f"the answer ended after {size} of {self._length} bytes")
        return b"".join(pieces)

    async def close(self) -> None:
        """Hang up; safe to repeat."""
        writer, self._writer = self._writer, None
        if writer is None:
            return
        writer.close()
        try:
            await writer.wait_closed()
        except OSError:
            return  # it was broken already

    async def _read(self, size: int) -> bytes:
        try:
            return await self._reader.read(size)
        except asyncio.TimeoutError:
            raise
        except OSError:
            raise Unreachable("cut", "the line ended")

    async def _readline(self) -> bytes:
        try:
            return await self._reader.readline()
        except asyncio.TimeoutError:
            raise
        except OSError:
            if self.status == 0:
                raise
            raise Unreachable("cut", "the line ended")
        except ValueError:  # CPython's bound on a line
            raise Unreachable("garbled", "a line of the answer is too long")


class _Session:
    """Requests through an aiohttp session, one at a time: micropython-lib's confuses two."""

    def __init__(self, session, base_url: str) -> None:
        self._session = session
        self._base_url = base_url.rstrip("/")
        self._lock = asyncio.Lock()

    async def open(self, method: str, path: str, headers: dict, payload: bytes) -> "_SessionAnswer":
        await self._lock.acquire()
        try:
            more = {"data": payload} if payload else {}
            context = self._session.request(method, self._base_url + path, headers=headers, **more)
            return _SessionAnswer(await context.__aenter__(), context, self._lock)
        except BaseException as error:
            self._lock.release()
            if isinstance(error, asyncio.TimeoutError) or not isinstance(error, Exception):
                raise
            if isinstance(error, OSError):
                raise Unreachable("refused", "nothing answers at " + self._base_url)
            raise Unreachable("cut", "the line ended")


class _SessionAnswer:
    def __init__(self, response, context, lock) -> None:
        self.status = response.status
        self._response = response
        self._context = context
        self._lock = lock

    async def line(self) -> bytes:
        return await _whatever(self._response.content.readline())

    async def body(self) -> bytes:
        raw = await _whatever(self._response.read())
        if len(raw) > MAX_ANSWER_BYTES:
            raise Unreachable("garbled", f"the answer is longer than {MAX_ANSWER_BYTES} bytes")
        return raw

    async def close(self) -> None:
        context, self._context = self._context, None
        if context is not None:
            self._lock.release()
            await context.__aexit__(None, None, None)


async def _whatever(work) -> bytes:
    """What a session's answer gives; the libraries' families of errors have no common root."""
    try:
        return await work
    except asyncio.TimeoutError:
        raise
    except Exception:  # noqa: BLE001 - told as ours
        raise Unreachable("cut", "the line ended")


def _whole(path: str) -> str:
    """`path` may be a whole one, as the daemon's own links are."""
    path = path if path.startswith(PREFIX) else PREFIX + path
    return "".join([chr(byte) if 32 < byte < 127 else f"%{byte:02X}" for byte in path.encode()])


def _query(query: dict | None) -> str:
    if not query:
        return ""
    return "?" + "&".join([_quoted(name) + "=" + _quoted(query[name]) for name in sorted(query)])


def _quoted(value) -> str:
    """Percent-encoded (RFC 3986)."""
    return "".join([chr(byte) if chr(byte) in PLAIN else f"%{byte:02X}" for byte in str(value).encode()])


def _number(value: bytes) -> int:
    value = value.strip()
    if not value.isdigit() or len(value) > 12:
        raise Unreachable("garbled", "the answer has no length")
    return int(value)


def _problem(raw: bytes) -> dict:
    """The problem document of a refusal; nothing where something else, such as a proxy, refuses."""
    try:
        return _document(raw)
    except Unreachable:
        return {}


def _document(raw: bytes) -> dict:
    try:
        document = json.loads(raw)
    except ValueError:
        raise Unreachable("garbled", "the answer is no JSON")
    if not isinstance(document, dict):
        raise Unreachable("garbled", "the answer is no object")
    return document
