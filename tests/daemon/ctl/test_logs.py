"""The log: by level and time, followed over lost connections, from its files with the daemon dead."""

import asyncio
import json
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

import pytest

from daemon.ctl import client as client_module
from daemon.ctl.client import Client
from daemon.ctl.logs import Moment
from daemon.ctl.options import Connection
from daemon.diagnostics.logs import log_file
from tests.daemon.ctl.fake_daemon import LINE, answering, refusing


def test_lines_are_readable_and_cannot_forge_others(ctl, fake):
    done = ctl("logs", "--level", "warning", "--since", "2026-01-02T03:04:05+01:00")
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        "2026-01-02T03:04:05.678Z warning daemon: no frame", "    | Traceback", "    | ValueError: \\x1b[2J",
    ]  # fmt: skip
    ((query, _),) = fake.asked("GET", "/logs")
    assert query["level"] == "warning"
    assert datetime.fromisoformat(query["since"]) == datetime(2026, 1, 2, 2, 4, 5, tzinfo=UTC)


def test_as_json_one_object_a_line(ctl, fake):
    fake.answers["GET /logs"] = answering({"entries": [LINE, LINE]})
    assert [json.loads(line) for line in ctl("logs", "--json").stdout.splitlines()] == [LINE, LINE]


@pytest.mark.parametrize(
    ("written", "seconds"), [("90", 90), ("90s", 90), ("10m", 600), ("1.5h", 5400), ("3d", 259_200)]
)
def test_times_back(written, seconds):
    back = datetime.now(UTC) - Moment().convert(written, None, None)
    assert back.total_seconds() == pytest.approx(seconds, abs=30)


def test_a_time_without_an_offset_is_local():
    assert Moment().convert("2026-01-02T03:04:05", None, None).tzinfo is not None


@pytest.mark.parametrize("written", ["yesterday", "-5m", "10y", "99999d", ""])
def test_what_is_no_time_is_wrong_usage(ctl, written):
    assert ctl("logs", "--since", written).exit_code == 2


def test_with_the_daemon_dead_its_files_are_read(run, tmp_path):
    path = log_file(tmp_path)
    path.parent.mkdir()
    old = LINE | {"message": "old", "utc": (datetime.now(UTC) - timedelta(hours=3)).isoformat()}
    new = LINE | {"message": "new", "utc": datetime.now(UTC).isoformat()}
    path.write_text(json.dumps(old) + "\n" + json.dumps(new) + "\n{torn")
    arguments = ["--socket", tmp_path / "no.sock", "logs", "--json", "--state-dir", tmp_path]
    done = run(*arguments)
    assert done.exit_code == 0
    assert "reading the files" in done.stderr
    assert [json.loads(line)["message"] for line in done.stdout.splitlines()] == ["old", "new"]
    done = run(*arguments, "--since", "1h", "--level", "warning")
    assert [json.loads(line)["message"] for line in done.stdout.splitlines()] == ["new"]
    assert run(*arguments, "--level", "error").stdout == ""


def test_with_neither_daemon_nor_files_a_sentence(run, tmp_path):
    done = run("--socket", tmp_path / "no.sock", "logs", "--state-dir", tmp_path)
    assert done.exit_code == 1
    assert "there is no log at" in done.stderr
    assert run("--socket", tmp_path / "no.sock", "logs", "--follow").exit_code == 1


def test_a_refusal_is_not_worked_around(ctl, fake, tmp_path):
    fake.answers["GET /logs"] = refusing(403, "api.forbidden", "the token may not read the log", "Use another.")
    done = ctl("logs", "--state-dir", tmp_path)
    assert (done.exit_code, done.stderr) == (1, "photometryctl: the token may not read the log. Use another.\n")


def test_following_resumes_and_shows_no_line_twice(fake, monkeypatch):
    monkeypatch.setattr(client_module, "BACKOFF_S", (0.01,))

    async def follow():
        begin = datetime(2026, 1, 2, tzinfo=UTC)
        async with Client(Connection(url=fake.url)) as client, aclosing(client.follow_logs("info", begin)) as entries:
            return [(await asyncio.wait_for(anext(entries), 10))["message"] for _ in range(4)]

    assert asyncio.run(follow()) == ["line 0", "line 1", "line 2", "line 3"]
    asked = [query["since"] for query, _ in fake.asked("GET", "/logs")]
    assert asked[:3] == ["2026-01-02T00:00:00+00:00", "2026-01-02T03:04:01.000+00:00", "2026-01-02T03:04:02.000+00:00"]
