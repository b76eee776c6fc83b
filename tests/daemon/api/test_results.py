"""Results of a real run file in every encoding."""

from __future__ import annotations

import asyncio
import io
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet
import pytest

from daemon.errors import StoreError, StoreReason
from daemon.parts import RunSummary
from daemon.store.export import export_run
from daemon.tables import AXIS, ECHEM, ENSEMBLE, EXPORT_TABLES, PARTICLES
from tests.daemon.api.conftest import Served
from tests.daemon.api.fakes import FRAMES, RATE_HZ, contrasts
from tests.daemon.api.fakes import PARTICLES as COUNT

ARROW = {"Accept": "application/vnd.apache.arrow.stream"}
CSV = {"Accept": "text/csv"}


async def arrow(served: Served, path: str) -> pyarrow.Table:
    async with served.ask("GET", path, headers=ARROW) as response:
        assert response.content_type == ARROW["Accept"]
        return pyarrow.ipc.open_stream(await response.read()).read_all()


async def csv(served: Served, path: str) -> pyarrow.Table:
    async with served.ask("GET", path, headers=CSV) as response:
        assert response.content_type == "text/csv"
        return pyarrow.csv.read_csv(io.BytesIO(await response.read()))


async def test_particles(with_run: Served) -> None:
    body = await with_run.json("GET", "/runs/r1/particles")
    assert body["run_id"] == "r1"
    assert [row["particle_id"] for row in body["particles"]] == [10, 11, 12, 13]
    assert tuple(body["particles"][0]) == (*PARTICLES, *AXIS)
    assert body["particles"][0]["equivalent_diameter_um"] is None
    assert tuple((await csv(with_run, "/runs/r1/particles")).column_names) == (*PARTICLES, *AXIS)


@pytest.mark.parametrize(
    ("table", "columns"), [("particles", (*PARTICLES, *AXIS)), ("ensemble", ENSEMBLE), ("echem", ECHEM)]
)
async def test_csv_is_that_of_the_export(
    with_run: Served, run_file: RunSummary, tmp_path: Path, table: str, columns: tuple[str, ...]
) -> None:
    await asyncio.to_thread(export_run, run_file.path, tmp_path, format="csv", tables=[table])
    exported = pyarrow.csv.read_csv(tmp_path / f"{table}.csv")
    assert tuple(exported.column_names) == columns
    assert (await csv(with_run, f"/runs/r1/{table}")).equals(exported)


async def test_every_frame_when_there_is_room(with_run: Served) -> None:
    body = await with_run.json("GET", f"/runs/r1/traces?points={FRAMES}&particles=13,10&columns=contrast,flags")
    assert (body["reduced"], body["columns"]) == (False, ["contrast", "flags"])
    assert [trace["particle_id"] for trace in body["traces"]] == [10, 13]
    trace = body["traces"][1]
    assert trace["frame"] == list(range(FRAMES))
    found = np.array(trace["contrast"], float)
    np.testing.assert_allclose(found, contrasts()[:, 3], atol=1e-4)
    assert trace["contrast"][100] is None
    assert set(trace["flags"]) == {0}


async def test_reduced_traces_keep_their_extremes_and_times(with_run: Served) -> None:
    body = await with_run.json("GET", "/runs/r1/traces?points=40")
    whole = await with_run.json("GET", f"/runs/r1/traces?points={FRAMES}")
    assert body["reduced"]
    assert len(body["traces"]) == COUNT
    for trace, full in zip(body["traces"], whole["traces"], strict=True):
        assert 10 <= len(trace["t_s"]) <= 40
        assert trace["t_s"] == sorted(trace["t_s"])
        known = [value for value in full["contrast"] if value is not None]
        kept = [value for value in trace["contrast"] if value is not None]
        assert (max(kept), min(kept)) == (max(known), min(known))
        for frame, value in zip(trace["frame"], trace["contrast"], strict=True):
            assert full["contrast"][frame] == value


async def test_a_span_of_a_trace(with_run: Served) -> None:
    body = await with_run.json("GET", "/runs/r1/traces?from=1.5&to=1.6&particles=10")
    times = body["traces"][0]["t_s"]
    assert (times[0], times[-1], len(times)) == (1.5, 1.6, 11)
    beyond = await with_run.json("GET", "/runs/r1/traces?from=1000&particles=10")
    assert beyond["traces"] == [{"particle_id": 10, "frame": [], "t_s": [], "contrast": []}]


async def test_derived_columns_are_null_without_a_calibration(with_run: Served) -> None:
    columns = "soc,soc_lo,soc_hi,gradient,front_px,axial_gradient,centroid_shift_px"
    body = await with_run.json("GET", f"/runs/r1/traces?points={FRAMES}&columns={columns}")
    uncalibrated, calibrated = body["traces"][0], body["traces"][1]
    assert set(uncalibrated["soc"]) == {None}
    expected = (contrasts()[:, 1] + 0.2) / 0.4
    soc = np.array(calibrated["soc"], float)
    inside = (expected > 0.05) & (expected < 0.95)
    np.testing.assert_allclose(soc[inside], expected[inside], atol=2e-3)
    assert (np.array(calibrated["soc_lo"], float)[inside] < soc[inside]).all()
    assert np.nanmax(np.abs(np.array(calibrated["gradient"], float))) < 1e-6
    for name in ("front_px", "axial_gradient", "centroid_shift_px"):
        assert set(calibrated[name]) == {None}, name


async def test_traces_as_tables(with_run: Served) -> None:
    path = f"/runs/r1/traces?points={FRAMES}&columns=contrast,soc&particles=10,11"
    as_arrow, as_csv = await arrow(with_run, path), await csv(with_run, path)
    assert as_arrow.column_names == as_csv.column_names == ["particle_id", "frame", "t_s", "contrast", "soc"]
    assert as_arrow.num_rows == as_csv.num_rows == 2 * FRAMES
    assert np.isnan(as_arrow["soc"].to_numpy()[:FRAMES]).all()
    assert as_csv["soc"].null_count >= FRAMES
    np.testing.assert_array_equal(as_arrow["t_s"].to_numpy()[:FRAMES], np.arange(FRAMES) / RATE_HZ)


async def test_too_much_at_once_is_refused(with_run: Served) -> None:
    problem = await with_run.json("GET", "/runs/r1/traces?points=100000&columns=contrast,soc,soc_lo,soc_hi", 400)
    assert problem["errors"][0]["field"] == "points"
    missing = await with_run.json("GET", "/runs/r1/traces?particles=10,99", 400)
    assert missing["errors"] == [{"field": "particles", "detail": "the run has no particle 99"}]


async def test_events_by_pages(with_run: Served) -> None:
    first = await with_run.json("GET", "/runs/r1/events?limit=20")
    second = await with_run.json("GET", f"/runs/r1/events?limit=20&after={first['next_after']}")
    assert [row["event_id"] for row in first["events"] + second["events"]] == list(range(1, 26))
    assert second["next_after"] is None
    assert first["events"][0]["magnitude"] is None
    assert [row["detail"] for row in second["events"]] == ["", "", "", "", "the last"]
    only = await with_run.json("GET", "/runs/r1/events?particle_id=2&kind=step")
    assert {row["particle_id"] for row in only["events"]} == {2}
    assert (await with_run.json("GET", "/runs/r1/events?kind=crack"))["events"] == []


async def test_series_over_time(with_run: Served) -> None:
    ensemble = (await with_run.json("GET", "/runs/r1/ensemble?from=10&to=12"))["ensemble"]
    assert [row["t_s"] for row in ensemble] == [10.0, 11.0, 12.0]
    assert ensemble[0]["soc_std"] is None
    echem = (await with_run.json("GET", "/runs/r1/echem?points=12"))["echem"]
    assert len(echem) <= 12
    assert (echem[0]["Voltage / V"], echem[-1]["Voltage / V"]) == (3.5, 3.549)
    assert echem[-1]["Current / A"] == pytest.approx(0.002)
    assert (echem[0]["Cycle Count / 1"], echem[-1]["Cycle Count / 1"]) == (None, 0)


async def test_an_export_is_a_zip_of_tables(with_run: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemon.api.operations.Operations.wait.__defaults__", (30.0,))  # its process takes a second
    async with with_run.ask("GET", "/runs/r1/export?format=parquet&tables=traces,events&particles=10,11") as response:
        assert (response.status, response.content_type) == (200, "application/zip")
        assert response.headers["Content-Disposition"] == 'attachment; filename="r1-parquet.zip"'
        archive = zipfile.ZipFile(io.BytesIO(await response.read()))
    assert archive.testzip() is None
    assert sorted(archive.namelist()) == ["events.parquet", "traces.parquet"]
    traces = pyarrow.parquet.read_table(io.BytesIO(archive.read("traces.parquet")))
    assert tuple(traces.column_names) == EXPORT_TABLES["traces"]
    assert traces.num_rows == 2 * FRAMES
    [operation] = (await with_run.json("GET", "/operations"))["operations"]
    async with with_run.ask("GET", operation["result"]["file_url"]) as again:
        assert len(await again.read()) == operation["result"]["size_bytes"]


async def test_a_slow_export_is_fetched_later(with_run: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemon.api.operations.Operations.wait.__defaults__", (0.0,))
    operation = await with_run.json("GET", "/runs/r1/export?format=csv&tables=echem", 202)
    joined = await with_run.json("GET", "/runs/r1/export?format=csv&tables=echem", 202)
    assert joined["operation_id"] == operation["operation_id"]
    found = await with_run.finished(operation)
    assert found["result"]["name"] == "r1-csv.zip"
    async with with_run.ask("GET", "/runs/r1/export?format=csv&tables=echem") as response:
        assert zipfile.ZipFile(io.BytesIO(await response.read())).namelist() == ["echem.csv"]
    other = await with_run.json("GET", "/runs/r1/export?format=csv&tables=echem", 202)
    assert other["operation_id"] != operation["operation_id"]
    await with_run.finished(other)


async def test_a_report_is_answered_like_an_export(with_run: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fake(run: Path, out: Path, particles: tuple[int, ...], progress: Callable[[float], None]) -> None:
        progress(0.5)
        asked.append((run.name, particles))
        out.write_text("<html>")
        if 99 in particles:
            raise StoreError(StoreReason.NO_PARTICLE, "the run has no particle 99")

    monkeypatch.setattr("daemon.api.exports.report_in_child", fake)
    async with with_run.ask("GET", "/runs/r1/report?particles=11,12") as response:
        assert (response.status, response.content_type) == (200, "text/html")
        assert response.headers["Content-Disposition"] == 'attachment; filename="r1.html"'
        assert await response.text() == "<html>"
    assert asked == [("r1.db", (11, 12))]
    assert (await with_run.json("GET", "/operations"))["operations"][0]["kind"] == "run.report"
    assert (await with_run.json("GET", "/runs/r1/report?particles=99", 404))["code"] == "store.no_such_particle"


@pytest.mark.parametrize("what", ["export", "report"])
async def test_a_process_that_ends_without_a_word_is_a_fault_of_ours(
    with_run: Served, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    def die(*_: object) -> None:
        raise ChildProcessError("the process ended with -9")

    monkeypatch.setattr(f"daemon.api.exports.{what}_in_child", die)
    problem = await with_run.json("GET", f"/runs/r1/{what}", 500)
    assert (problem["code"], problem["detail"]) == ("api.internal", "the process ended with -9")


async def test_no_export_fills_the_disk(with_run: Served) -> None:
    store = with_run.fakes.settings.store.model_copy(update={"min_free_mb": 10**9})
    with_run.server._parts.settings = with_run.fakes.settings.model_copy(update={"store": store})
    problem = await with_run.json("GET", "/runs/r1/export", 507)
    assert problem["code"] == "store.disk_full"


async def test_a_run_whose_file_is_gone(served: Served, run_file: RunSummary) -> None:
    served.fakes.runs.runs["r2"] = replace(run_file, run_id="r2", path=run_file.path.with_name("gone.db"))
    problem = await served.json("GET", "/runs/r2/particles", 409)
    assert problem["code"] == "store.not_a_run"
