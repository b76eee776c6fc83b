"""Row tables by pages: of finished runs and of one in progress."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path
from typing import Any

import pyarrow.csv
import pyarrow.ipc
import pytest

from daemon.api.app import ENDPOINTS
from daemon.parts import RunSummary
from daemon.store.export import export_run
from daemon.store.writer import StoreWriter
from daemon.tables import ROW_TABLES
from tests.daemon.api.conftest import Served
from tests.daemon.api.fakes import put_row_tables, summary

ARROW = "application/vnd.apache.arrow.stream"
FILLED = [name for name in ROW_TABLES if name != "clips"]  # whose rows other tests make


@pytest.mark.parametrize("name", ROW_TABLES)
async def test_every_row_table_is_served_as_it_is_exported(
    with_run: Served, run_file: RunSummary, tmp_path: Path, name: str
) -> None:
    await asyncio.to_thread(export_run, run_file.path, tmp_path, format="csv", tables=[name])
    exported = pyarrow.csv.read_csv(tmp_path / f"{name}.csv")
    async with with_run.ask("GET", f"/runs/r1/{name}", headers={"Accept": "text/csv"}) as response:
        served = pyarrow.csv.read_csv(io.BytesIO(await response.read()))
    assert tuple(served.column_names) == ROW_TABLES[name].columns
    order = [(each, "ascending") for each in ROW_TABLES[name].order]
    assert served.sort_by(order).equals(exported.sort_by(order))
    assert len(served) > 0 or name not in FILLED


@pytest.mark.parametrize("name", ROW_TABLES)
async def test_rows_have_exactly_the_published_columns(with_run: Served, name: str) -> None:
    body = await with_run.json("GET", f"/runs/r1/{name}")
    assert (body["run_id"], body["next_after"]) == ("r1", None)
    assert all(tuple(row) == ROW_TABLES[name].columns for row in body[name])
    (endpoint,) = [each for each in ENDPOINTS if each.path == f"/runs/{{run_id}}/{name}"]
    assert endpoint.answer is not None
    shape = endpoint.answer.model_json_schema()["$defs"]
    assert {tuple(row["properties"]) for row in shape.values()} == {ROW_TABLES[name].columns}


@pytest.mark.parametrize(
    ("asked", "count"),
    [("", 12), ("particle_id=11", 6), ("cycle=1", 4), ("half=discharge", 6), ("particle_id=10&cycle=2&half=charge", 1),
     ("particle_id=99", 0), ("cycle=7", 0), ("half=none", 0)],
)  # fmt: skip
@pytest.mark.parametrize("name", ["rates", "fronts"])
async def test_filters(with_run: Served, name: str, asked: str, count: int) -> None:
    body = await with_run.json("GET", f"/runs/r1/{name}?{asked}")
    assert len(body[name]) == count
    wanted = dict(each.split("=") for each in filter(None, asked.split("&")))
    assert all(str(row[column]) == value for row in body[name] for column, value in wanted.items())


async def test_unknown_values_are_null(with_run: Served) -> None:
    row = (await with_run.json("GET", "/runs/r1/health?particle_id=10&cycle=0"))["health"][0]
    assert (row["lead_cycles"], row["loss_trend"], row["failed"], row["retention"]) == (None, None, 1, 0.98)
    assert (await with_run.json("GET", "/runs/r1/cycles?particle_id=11"))["cycles"][0]["lag_s"] is None


async def test_curves_come_as_lists_in_json_and_as_text_elsewhere(with_run: Served) -> None:
    (row,) = (await with_run.json("GET", "/runs/r1/calibrations"))["calibrations"]
    assert (row["contrast_knots"], row["soc_sigma"], row["soc_sigma_knots"]) == ([-0.2, 0.2], 0.01, None)
    async with with_run.ask("GET", "/runs/r1/calibrations", headers={"Accept": ARROW}) as response:
        (row,) = pyarrow.ipc.open_stream(await response.read()).read_all().to_pylist()
    assert (row["contrast_knots"], row["layers"]) == ("[-0.2,0.2]", None)


@pytest.mark.parametrize("accepted", ["application/json", "text/csv", ARROW])
async def test_pages_hold_every_row_once(with_run: Served, accepted: str) -> None:
    whole = (await with_run.json("GET", "/runs/r1/fronts"))["fronts"]
    found: list[dict[str, Any]] = []
    after: str | None = "0"
    for _ in range(20):
        async with with_run.ask(
            "GET", f"/runs/r1/fronts?limit=5&after={after}", headers={"Accept": accepted}
        ) as response:
            assert response.status == 200
            found += rows_of(await response.read(), accepted)
            after = response.headers.get("X-Next-After")
        if after is None:
            break
    assert after is None
    keys = [(row["particle_id"], row["cycle"], row["half"]) for row in found]
    assert len(set(keys)) == len(keys) == len(whole)
    assert set(keys) == {(row["particle_id"], row["cycle"], row["half"]) for row in whole}


def rows_of(body: bytes, accepted: str) -> list[dict[str, Any]]:
    import json

    if accepted == "application/json":
        return list(json.loads(body)["fronts"])
    if accepted == ARROW:
        return pyarrow.ipc.open_stream(body).read_all().to_pylist()
    return pyarrow.csv.read_csv(io.BytesIO(body)).to_pylist()


@pytest.mark.parametrize(
    ("path", "field"),
    [("rates?half=sideways", "half"), ("health?limit=0", "limit"), ("health?limit=10001", "limit"),
     ("cycles?limit=10001", "limit"), ("fronts?cycle=x", "cycle"), ("fronts?particle_id=-1", "particle_id"),
     ("health?half=charge", "half"), ("clips?cycle=1", "cycle"), ("calibrations?cycle=1", "cycle"),
     ("rates?after=-1", "after"), ("rates?cycle=1&cycle=2", "cycle")],
)  # fmt: skip
async def test_what_is_wrong_is_named(with_run: Served, path: str, field: str) -> None:
    problem = await with_run.json("GET", f"/runs/r1/{path}", 400)
    assert problem["errors"][0]["field"] == field


async def test_a_run_in_progress_and_what_is_measured_anew(served: Served, tmp_path: Path) -> None:
    writer = StoreWriter(None, commit_interval_s=0.001)
    writer.start()
    try:
        path = tmp_path / "live.db"
        await asyncio.to_thread(lambda: writer.create_run(path, {"run_id": "live"}).result(5))
        served.fakes.runs.runs["live"] = summary("live", path)
        assert (await served.json("GET", "/runs/live/rates"))["rates"] == []
        await asyncio.to_thread(put_row_tables, writer)
        await asyncio.to_thread(lambda: writer.put_health([]).result(5))
        first = await served.json("GET", "/runs/live/health?limit=6")
        assert len(first["health"]) == 6
        anew = {"particle_id": 11, "cycle": 0, "loss": 0.5}
        await asyncio.to_thread(lambda: writer.put_health([anew]).result(5))
        second = await served.json("GET", f"/runs/live/health?after={first['next_after']}")
        assert [(row["particle_id"], row["cycle"], row["loss"]) for row in second["health"]] == [(11, 0, 0.5)]
        assert len((await served.json("GET", "/runs/live/health"))["health"]) == 6
    finally:
        await asyncio.to_thread(writer.stop)


async def test_cycles_and_clips_come_whole_unless_asked_for_by_pages(with_run: Served) -> None:
    assert len((await with_run.json("GET", "/runs/r1/cycles"))["cycles"]) == 2
    body = await with_run.json("GET", "/runs/r1/cycles?limit=1")
    assert len(body["cycles"]) == 1 and body["next_after"] is not None
    assert ROW_TABLES["cycles"].page is None and ROW_TABLES["clips"].page is None
