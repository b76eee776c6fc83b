import json

import pytest
from aiohttp import web

from daemon.tables import ROW_TABLES
from tests.daemon.ctl.fake_daemon import answering, refusing

ROWS = [{"particle_id": 4, "cycle": cycle, "retention": 0.5, "loss": None} for cycle in range(2500)]


@pytest.fixture
def health(fake):
    """2500 rows by pages, as the daemon serves them."""

    async def page(request: web.Request) -> web.StreamResponse:
        after, limit = int(request.query["after"]), int(request.query["limit"])
        rows = ROWS[after : after + limit]
        return web.json_response(
            {"run_id": "r7", "health": rows, "next_after": after + limit if len(rows) == limit else None}
        )

    fake.answers["GET /runs/r7/health"] = page
    return fake


def test_rows_of_the_run_in_progress(ctl, health):
    done = ctl("table", "health", "--limit", "3")
    assert done.exit_code == 0 and done.stderr == "further rows: --after 3\n"
    head, *lines = done.stdout.splitlines()
    assert head.split() == ["particle_id", "cycle", "retention"], "no column that holds nothing"
    assert [line.split() for line in lines] == [["4", "0", "0.5"], ["4", "1", "0.5"], ["4", "2", "0.5"]]


def test_all_columns_fit_into_a_file(ctl, fake):
    row = dict.fromkeys(ROW_TABLES["health"].columns, 1.23456) | {"loss": None}
    fake.answers["GET /runs/r7/health"] = answering({"run_id": "r7", "health": [row, row | {"loss": 0.5}]})
    head, first, _ = ctl("table", "health").stdout.splitlines()
    assert head.split() == list(ROW_TABLES["health"].columns)
    assert first.split()[head.split().index("loss")] == "-", "what is not known is a dash"


def test_columns_can_be_picked(ctl, health):
    done = ctl("table", "health", "--limit", "1", "--columns", "loss,cycle")
    assert [line.split() for line in done.stdout.splitlines()] == [["loss", "cycle"], ["-", "0"]]
    wrong = ctl("table", "health", "--columns", "colour")
    assert wrong.exit_code == 2 and "no column 'colour'" in wrong.stderr


@pytest.mark.parametrize(("limit", "after", "count", "following"), [
    (2400, 0, 2400, 2400), (5000, 0, 2500, None), (1000, 2000, 500, None), (10, 2495, 5, None),
])  # fmt: skip
def test_pages_are_put_together(ctl, health, limit, after, count, following):
    done = ctl("table", "health", "--json", "--limit", limit, "--after", after)
    assert (done.exit_code, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found == {"run_id": "r7", "health": ROWS[after : after + count], "next_after": following}


def test_what_is_asked_for(ctl, fake):
    fake.answers["GET /runs/r8/rates"] = answering({"run_id": "r8", "rates": [], "next_after": None})
    done = ctl("table", "rates", "--run", "r8", "--particle", "4", "--cycle", "2", "--half", "charge", "--limit", "10")
    assert done.exit_code == 0, done.stderr
    asked = {"after": "0", "limit": "10", "particle_id": "4", "cycle": "2", "half": "charge"}
    assert fake.asked("GET", "/runs/r8/rates") == [(asked, None)]


@pytest.mark.parametrize(
    "arguments", [["calibrations", "--cycle", "1"], ["health", "--half", "charge"], ["clips", "--cycle", "0"],
                  ["traces"], ["health", "--limit", "0"], ["rates", "--half", "left"], []],
)  # fmt: skip
def test_wrong_usage_is_2_and_asks_nothing(ctl, fake, arguments):
    done = ctl("table", *arguments)
    assert done.exit_code == 2 and "Usage:" in done.stderr
    assert fake.requests == []


@pytest.mark.parametrize("document", [{}, {"health": 3}, {"health": [], "next_after": 7}])
def test_answers_with_less_in_them_end_too(ctl, fake, document):
    fake.answers["GET /runs/r7/health"] = answering(document)
    assert ctl("table", "health").exit_code == 0
    assert json.loads(ctl("table", "health", "--json").stdout)["health"] == []


def test_a_refusal_is_its_sentence(ctl, fake):
    fake.answers["GET /runs/r9/health"] = refusing(404, "run.not_found", "there is no run 'r9'", "See `runs`.")
    done = ctl("table", "health", "--run", "r9")
    assert (done.exit_code, done.stderr) == (1, "photometryctl: there is no run 'r9'. See `runs`.\n")


def test_every_table_can_be_asked_for(ctl, fake):
    for name in ROW_TABLES:
        fake.answers[f"GET /runs/r7/{name}"] = answering({"run_id": "r7", name: [], "next_after": None})
        assert ctl("table", name).exit_code == 0
        assert name in ctl("table", "--help").stdout
