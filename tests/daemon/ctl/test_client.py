import asyncio
import contextlib
import json
import socket
import time

import pytest

from daemon.ctl import client as module
from daemon.ctl.client import Client, Refused, ask
from daemon.ctl.options import Connection
from daemon.errors import ClientError, ClientReason
from tests.daemon.ctl.fake_daemon import ARCHIVE, EVENTS, STATUS, FakeDaemon, answering, refusing


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(module, "POLL_S", 0.01)
    monkeypatch.setattr(module, "BACKOFF_S", (0.01,))


@pytest.fixture
def connection(fake):
    return Connection(fake.url, timeout_s=2.0)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def get(connection, path="/status", **query):
    return ask(connection, lambda client: client.get(path, **query))


def refusal(connection, path="/status"):
    with pytest.raises((ClientError, Refused)) as caught:
        get(connection, path)
    return caught.value


@pytest.mark.parametrize("suffix", ["", "/", "/api/v1", "/api/v1/"])
def test_the_url_may_end_as_it_likes(fake, suffix):
    assert get(Connection(fake.url + suffix)) == STATUS


def test_the_unix_socket(fake):
    assert get(Connection("http://nowhere.invalid", socket=str(fake.socket))) == STATUS


def test_the_token_is_sent(fake):
    get(Connection(fake.url, token="sesame"))
    assert fake.headers[-1]["Authorization"] == "Bearer sesame"


def test_what_is_none_is_not_asked(fake, connection):
    get(connection, "/runs", limit=3, after=None)
    assert fake.asked("GET", "/runs") == [({"limit": "3"}, None)]


def test_nobody_there():
    error = refusal(Connection(f"http://127.0.0.1:{free_port()}"))
    assert error.reason is ClientReason.NOT_RUNNING
    assert "not running" in error.detail and "photometryd --simulate" in error.remedy


def test_no_socket_there(tmp_path):
    assert refusal(Connection(socket=str(tmp_path / "no.sock"))).reason is ClientReason.NOT_RUNNING


def test_a_socket_of_someone_else(connection, fake, monkeypatch):
    async def denied(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(asyncio.BaseEventLoop, "create_unix_connection", denied, raising=False)
    monkeypatch.setattr("asyncio.unix_events._UnixSelectorEventLoop.create_unix_connection", denied)
    assert refusal(Connection(socket=str(fake.socket))).reason is ClientReason.DENIED


def test_no_answer_in_time(fake):
    async def slow(request):
        await asyncio.sleep(1)

    fake.answers["GET /status"] = slow
    started = time.monotonic()
    error = refusal(Connection(fake.url, timeout_s=0.1))
    assert error.reason is ClientReason.TIMEOUT and "0.1 s" in error.detail
    assert time.monotonic() - started < 0.9


@pytest.mark.parametrize("body", [b"<html>", b"", b"{", b"\xff\xfe", b"[]", b"null"])
def test_something_else_answers(fake, connection, body):
    fake.answers["GET /status"] = answering(body)
    assert refusal(connection).reason is ClientReason.BAD_ANSWER


def test_something_else_refuses(fake, connection):
    fake.answers["GET /status"] = answering(b"<html>bad gateway", 502)
    error = refusal(connection)
    assert error.reason is ClientReason.BAD_ANSWER and "502" in error.detail


def test_a_hang_up(fake, connection):
    async def hang_up(request):
        request.transport.close()

    fake.answers["GET /status"] = hang_up
    assert refusal(connection).reason is ClientReason.NOT_RUNNING


def test_a_problem_document_is_the_error(fake, connection):
    fake.answers["GET /status"] = refusing(403, "api.forbidden", "this needs the scope 'operate'", "Use another token.")
    error = refusal(connection)
    assert (error.code, error.detail, error.remedy) == (
        "api.forbidden",
        "this needs the scope 'operate'",
        "Use another token.",
    )
    assert str(error) == "this needs the scope 'operate'. Use another token."


def test_a_problem_document_with_nothing_in_it(fake, connection):
    fake.answers["GET /status"] = answering({"status": 500}, 500)
    error = refusal(connection)
    assert "500" in error.detail and error.code == "client.refused"


def test_an_operation_is_waited_for(fake, connection):
    fake.answers["POST /selftest"] = fake.operation(
        "a1", {"state": "pending"}, {"state": "running", "log": ["one"]}, {"state": "running", "log": ["one", "two"]},
        {"state": "done", "log": ["one", "two"], "result": {"answer": 42}},
    )  # fmt: skip
    told = []

    async def conversation(client):
        return await client.finish(await client.send("POST", "/selftest"), lambda _, line: told.append(line))

    assert ask(connection, conversation) == {"answer": 42}
    assert told == ["one", "two"]


@pytest.mark.parametrize(
    ("end", "words"),
    [({"state": "failed", "error": {"detail": "it broke", "remedy": "Mend it."}}, "it broke. Mend it."),
     ({"state": "cancelled"}, "cancelled")],
)  # fmt: skip
def test_an_operation_that_fails(fake, connection, end, words):
    fake.answers["POST /selftest"] = fake.operation("a2", end)

    async def conversation(client):
        return await client.finish(await client.send("POST", "/selftest"))

    with pytest.raises(Refused) as caught:
        ask(connection, conversation)
    assert words in str(caught.value)


def download(connection, out):
    return ask(connection, lambda client: client.download("/diagnostics/bundle", out, "application/gzip"))


def test_a_download(fake, connection, tmp_path):
    fake.answers["GET /diagnostics/bundle"] = answering(("application/gzip", ARCHIVE))
    download(connection, tmp_path / "b.tar.gz")
    assert (tmp_path / "b.tar.gz").read_bytes() == ARCHIVE


def test_a_download_that_takes_a_while(fake, connection, tmp_path):
    done = {"state": "done", "result": {"file_url": "/api/v1/operations/b1/file"}}
    fake.answers["GET /diagnostics/bundle"] = fake.operation("b1", {"state": "running"}, done)
    download(connection, tmp_path / "b.tar.gz")
    assert (tmp_path / "b.tar.gz").read_bytes() == ARCHIVE


def test_a_download_that_breaks_off_leaves_what_was_there(fake, connection, tmp_path):
    async def break_off(request):
        response = module.aiohttp.web.StreamResponse(
            headers={"Content-Type": "application/gzip", "Content-Length": "99999"}
        )
        await response.prepare(request)
        await response.write(b"half")
        request.transport.close()
        return response

    fake.answers["GET /diagnostics/bundle"] = break_off
    out = tmp_path / "b.tar.gz"
    out.write_bytes(b"before")
    with pytest.raises(ClientError):
        download(connection, out)
    assert out.read_bytes() == b"before" and list(tmp_path.glob(".b*")) == []


def test_a_download_of_something_else(fake, connection, tmp_path):
    fake.answers["GET /diagnostics/bundle"] = answering({"not": "an archive"})
    with pytest.raises(ClientError) as caught:
        download(connection, tmp_path / "b.tar.gz")
    assert caught.value.reason is ClientReason.BAD_ANSWER and not (tmp_path / "b.tar.gz").exists()


def collected(connection, count, after=0, lost=None, during=None):
    async def conversation():
        found = []
        async with Client(connection) as client, contextlib.aclosing(client.follow_events(after, lost)) as events:
            async for event in events:
                found.append(event)
                if during is not None:
                    during(len(found))
                if len(found) == count:
                    return found

    return asyncio.run(asyncio.wait_for(conversation(), 10))


def test_following_resumes_behind_the_last_event(fake, connection):
    assert collected(connection, 3) == EVENTS
    assert [query["after"] for query, _ in fake.asked("GET", "/events")] == ["0", "1", "2"]
    assert collected(connection, 1, after=2) == EVENTS[2:]


def test_following_outlives_a_restart(tmp_path, connection, fake):
    """The daemon goes away in between, and comes back at the same place."""
    second = FakeDaemon(tmp_path / "..", 0)
    lost = []
    first = FakeDaemon(tmp_path, free_port())
    first.socket = tmp_path / "other.sock"
    second.port, second.socket = first.port, tmp_path / "third.sock"
    first.__enter__()
    try:

        def restart(count):
            if count == 1:
                first.__exit__()
                second.__enter__()

        found = collected(Connection(first.url), 3, lost=lost.append, during=restart)
    finally:
        second.__exit__()
    assert found == EVENTS


def test_following_nobody_is_an_error():
    with pytest.raises(ClientError, match="not running"):
        collected(Connection(f"http://127.0.0.1:{free_port()}"), 1)


def test_following_without_leave_is_an_error(fake, connection):
    fake.answers["GET /events"] = refusing(401, "api.unauthorised", "the request carries no token", "Send one.")
    with pytest.raises(Refused, match="no token"):
        collected(connection, 1)


def test_a_refusal_that_passes_is_waited_out(fake, connection):
    """A daemon that has just come back may refuse for a moment."""
    lost = []

    def busy_for_a_moment(count):
        if count == 1:
            fake.answers["GET /events"] = refusing(503, "api.busy", "too many streams", "Wait.")
            fake.later(0.2, fake.answers.clear)

    assert collected(connection, 2, lost=lost.append, during=busy_for_a_moment) == EVENTS[:2]
    assert [error.code for error in lost] == ["api.busy"]


def test_a_line_that_is_no_event(fake, connection):
    fake.answers["GET /events"] = answering(("application/x-ndjson", b"[1]\n"))
    with pytest.raises(ClientError) as caught:
        collected(connection, 1)
    assert caught.value.reason is ClientReason.BAD_ANSWER


def test_events_are_json(fake):
    assert json.loads(json.dumps(EVENTS)) == EVENTS
