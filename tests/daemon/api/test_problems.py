"""Every refusal is a problem document that says what, where and what to do."""

from __future__ import annotations

import json

import pytest

from daemon.api.problems import MEDIA_TYPE, http_status
from daemon.errors import ExperimentReason, RunReason, all_reasons
from tests.daemon.api.conftest import Serve, Served


@pytest.mark.parametrize("reason", all_reasons(), ids=lambda reason: reason.code)
def test_every_reason_has_a_status(reason: object) -> None:
    assert 400 <= http_status(reason) < 600  # type: ignore[arg-type]


def test_statuses_follow_the_kind_of_reason() -> None:
    assert http_status(RunReason.NOT_FOUND) == 404
    assert http_status(RunReason.BUSY) == 409
    assert http_status(ExperimentReason.BUSY) == http_status(ExperimentReason.NOT_RUNNING) == 409
    assert http_status(ExperimentReason.OUTSIDE_LIMITS) == 422


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "api.not_found"),
        ("GET", "/runs/../../etc/passwd", 404, "api.not_found"),
        ("GET", "/runs/%2e%2e%2fpasswd", 404, "api.not_found"),
        ("GET", "/runs/none", 404, "run.not_found"),
        ("GET", "/runs/" + "x" * 300, 404, "api.not_found"),
        ("DELETE", "/status", 405, "api.method_not_allowed"),
        ("POST", "/runs/none/stop", 404, "run.not_found"),
        ("POST", "/calibrations/warm", 404, "api.not_found"),
        ("GET", "/operations/nope", 404, "api.not_found"),
        ("GET", "/operations/abcdef", 404, "api.not_found"),
        ("GET", "/frame.png", 503, "api.unavailable"),
        ("POST", "/cell/pause", 422, "cell.refused"),
    ],
)
async def test_refusals(served: Served, method: str, path: str, status: int, code: str) -> None:
    async with served.ask(method, path) as response:
        assert response.content_type == "application/problem+json"
        problem = await response.json(content_type=None)
    assert (response.status, problem["code"], problem["status"]) == (status, code, status)
    assert problem["type"] == f"urn:photometryd:problem:{code}"
    assert problem["detail"]
    assert problem["remedy"]
    assert problem["title"]
    assert (status == 405) == ("Allow" in response.headers)
    assert (status == 503) == ("Retry-After" in response.headers)


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"", "body"),
        (b"{", "body"),
        (b"\xff\xfe", "body"),
        (b"[1]", "body"),
        (b'{"steps": []}', "steps"),
        (b'{"steps": ["Rest for 1 hour"], "cycels": 3}', "cycels"),
        (b'{"steps": ["Rest for 1 hour"], "cycles": "3"}', "cycles"),
        (b'{"steps": ["Rest for 1 hour"], "capacity_mah": NaN}', "capacity_mah"),
        (b'{"steps": ["Rest for 1 hour"], "limits": {"max_current_ma": -1}}', "limits.max_current_ma"),
        (b"[" * 100_000, "body"),
    ],
)
async def test_bad_bodies_name_the_field(served: Served, body: bytes, named: str) -> None:
    headers = {"Content-Type": "application/json"}
    problem = await served.json("POST", "/cell/experiment", 400, data=body, headers=headers)
    assert problem["code"] == "api.bad_request"
    assert named in [error["field"] for error in problem["errors"]]
    assert served.fakes.cell.calls == []


@pytest.mark.parametrize(
    "declared", ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=a"]
)
async def test_bodies_are_json(served: Served, declared: str) -> None:
    problem = await served.json("POST", "/runs", 415, data=b"{}", headers={"Content-Type": declared})
    assert problem["code"] == "api.media_type"


async def test_a_huge_body_is_refused(serve: Serve) -> None:
    served = await serve(max_body_bytes=1000)
    body = json.dumps({"name": "x" * 2000}).encode()
    headers = {"Content-Type": "application/json"}
    problem = await served.json("POST", "/runs", 413, data=body, headers=headers)
    assert problem["code"] == "api.too_large"
    assert "max_body_bytes" in problem["detail"]
    assert served.fakes.runs.started == 0


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("/runs?limit=0", "limit"),
        ("/runs?limit=ten", "limit"),
        ("/runs?limti=10", "limti"),
        ("/runs?limit=1&limit=2", "limit"),
        ("/status?now=1", "now"),
        ("/runs/r1/traces?points=100001", "points"),
        ("/runs/r1/traces?particles=1,x", "particles.1"),
        ("/runs/r1/traces?particles=-1", "particles.0"),
        ("/runs/r1/traces?particles=" + "1," * 3000, "particles"),
        ("/runs/r1/traces?columns=contrast,colour", "columns"),
        ("/runs/r1/traces?from=nan", "from"),
        ("/runs/r1/traces?to=inf", "to"),
        ("/runs/r1/traces?from=2&to=1", "query"),
        ("/runs/r1/events?kind=party", "kind"),
        ("/runs/r1/events?limit=99999", "limit"),
        ("/runs/r1/export?format=xls", "format"),
        ("/runs/r1/export?tables=secrets", "tables"),
        ("/frame.png?overlay=hat", "overlay"),
        ("/frame.png?scale=1000", "scale"),
        ("/events?after=-1", "after"),
        ("/logs?since=yesterday", "since"),
        ("/logs?since=2026-01-01T00:00:00", "since"),
        ("/logs?level=loud", "level"),
    ],
)
async def test_bad_parameters_are_named(with_run: Served, path: str, named: str) -> None:
    problem = await with_run.json("GET", path, 400)
    assert problem["code"] == "api.bad_request"
    assert named in [error["field"] for error in problem["errors"]] or "particles" in named
    assert len(problem["detail"]) < 1000


async def test_a_misspelt_parameter_is_answered_with_the_nearest(served: Served) -> None:
    assert "'limit'" in (await served.json("GET", "/runs?limti=10", 400))["detail"]


async def test_an_unexpected_error_gives_a_log_id_and_no_more(
    served: Served, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(limit: int = 100) -> list[object]:
        raise ZeroDivisionError("secret of the house")

    monkeypatch.setattr(served.fakes.runs, "list", broken)
    problem = await served.json("GET", "/runs", 500)
    assert problem["code"] == "api.internal"
    assert problem["log_id"] in caplog.text
    assert "ZeroDivisionError" in caplog.text
    assert "secret" not in json.dumps(problem)
    assert "Traceback" not in json.dumps(problem)


async def test_a_media_type_nobody_has_is_refused(with_run: Served) -> None:
    problem = await with_run.json("GET", "/runs/r1/particles", 406, headers={"Accept": "image/gif"})
    assert "text/csv" in problem["detail"]


@pytest.mark.parametrize("path", ["/api/v1/status", "/api/v1/nowhere", "/static/plotly.min.js"])
async def test_what_is_expected_of_the_instrument_and_not_to_be_had_is_a_problem(served: Served, path: str) -> None:
    problem = await served.json("GET", path, 417, headers={"Expect": "miracles"})
    assert problem["code"] == "api.bad_request" and "100-continue" in problem["detail"]
    await served.json("POST", "/runs", 202, json={}, headers={"Expect": "100-continue"})


@pytest.mark.parametrize("range_", ["bytes=99999999999-", "bytes=5-1", "lines=1-2", "bytes=x"])
async def test_a_range_that_a_file_does_not_have_is_a_problem(served: Served, range_: str) -> None:
    for _ in range(2):  # on one connection: the answer ends where it says
        async with served.ask("GET", "/static/plotly.min.js", headers={"Range": range_}) as response:
            problem = await response.json(content_type=MEDIA_TYPE)
            assert (response.status, problem["status"], problem["code"]) == (416, 416, "api.bad_request")
            assert response.headers["Content-Range"].startswith("bytes */")
            assert "max-age" not in response.headers["Cache-Control"]
    async with served.ask("HEAD", "/static/plotly.min.js", headers={"Range": range_}) as response:
        assert (response.status, await response.read()) == (416, b"")
    async with served.ask("GET", "/static/plotly.min.js", headers={"Range": "bytes=0-9"}) as response:
        assert (response.status, len(await response.read())) == (206, 10)
    assert len(served.server._table) == 1
