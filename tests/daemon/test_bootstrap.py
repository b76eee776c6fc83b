"""How the parts are wired to each other."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from daemon import bootstrap
from daemon.bootstrap import Instrument
from daemon.config import LoadedSettings, Settings, StoreSettings
from daemon.diagnostics.checks.table import check_classes, live_checks
from daemon.diagnostics.logs import LogService
from daemon.diagnostics.selftest import run_check
from daemon.errors import StoreError, StoreReason
from daemon.events import Event, EventKind
from daemon.parts import PartStatus
from daemon.service.notify import Notifier
from tests.daemon.api.fakes import summary


def test_a_step_of_the_wall_clock_is_recorded_counted_and_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    loaded = LoadedSettings(Settings(store=StoreSettings(state_dir=tmp_path)), {}, None)
    instrument = Instrument(loaded, LogService("info", tmp_path), Notifier({}))
    recorded: list[Event] = []
    monkeypatch.setattr(instrument.runs, "record", recorded.append)
    instrument.clock_watch._on_step(-2.5)
    assert [(event.kind, event.magnitude) for event in recorded] == [(EventKind.CLOCK_STEP, -2.5)]
    assert b"instrument_clock_steps_total 1.0" in instrument.metrics.text()
    assert "-2.500 s" in caplog.text


def test_a_fault_of_the_engine_is_listed_counted_and_photographed(tmp_path: Path) -> None:
    loaded = LoadedSettings(Settings(store=StoreSettings(state_dir=tmp_path)), {}, None)
    instrument = Instrument(loaded, LogService("info", tmp_path), Notifier({}))
    instrument.engine.on_fault("camera.stalled", "no frame for 2.0 s", "Power-cycle it.")
    assert [fault["code"] for fault in instrument.faults.recent()] == ["camera.stalled"]
    assert b'instrument_faults_total{code="camera.stalled"} 1.0' in instrument.metrics.text()
    assert list(instrument.snapshots._pending) == ["camera.stalled"]


def test_every_check_is_built_from_the_parts(tmp_path: Path) -> None:
    loaded = LoadedSettings(Settings(store=StoreSettings(state_dir=tmp_path)), {}, None)
    instrument = Instrument(loaded, LogService("info", tmp_path), Notifier({}))
    built = live_checks(instrument)
    assert [type(check) for check in built] == [kind for kind, _ in check_classes()]
    outcomes = {check.name: run_check(check) for check in built}
    assert outcomes["store"].outcome == "fail"  # it was not started
    assert outcomes["camera_frames"].measured == "none since the start"
    assert all(result.measured and "check itself failed" not in result.measured for result in outcomes.values())
    assert instrument.status()["selftest"] is None
    told = PartStatus("maintenance", "ready", values={"check": {"utc": "U", "outcome": "done", "detail": "3 files"}})
    instrument.status_parts = lambda: [told]  # type: ignore[method-assign]
    (store,) = [check for check in built if check.name == "store"]
    assert "full check U: 3 files" in store.run().measured


def test_a_part_that_does_not_stop_in_time_is_an_error_with_a_name_and_the_others_stop(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loaded = LoadedSettings(Settings(store=StoreSettings(state_dir=tmp_path)), {}, None)
    instrument, stopped = Instrument(loaded, LogService("info", tmp_path), Notifier({})), []

    async def last() -> None:
        stopped.append("lock")

    async def slow() -> None:
        raise StoreError(StoreReason.OVERLOADED, "the store did not finish")

    instrument._down = [("lock", last), ("store", slow)]
    asyncio.run(instrument.stop())
    assert stopped == ["lock"]
    (record,) = [record for record in caplog.records if "stopping store" in record.getMessage()]
    assert "the store did not finish" in record.getMessage() and record.exc_info is None


async def test_damage_that_a_check_finds_sets_a_run_aside_and_a_newer_file_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = LoadedSettings(Settings(store=StoreSettings(state_dir=tmp_path)), {}, None)
    instrument = await asyncio.to_thread(Instrument, loaded, LogService("info", tmp_path), Notifier({}))
    recorded: list[Event] = []
    monkeypatch.setattr(instrument.runs, "record", recorded.append)
    instrument._loop = asyncio.get_running_loop()
    path = instrument.layout.run_path("r1")

    def finished_run() -> None:
        instrument.layout.prepare()
        instrument.writer.start()
        instrument.writer.create_run(path, {}, summary("r1", path, "done")).result(10)
        instrument.writer.close_run().result(10)

    await asyncio.to_thread(finished_run)
    await asyncio.to_thread(instrument.damage_found, StoreError(StoreReason.NEWER, f"{path}: by a newer version"))
    assert path.exists() and recorded == []
    await asyncio.to_thread(instrument.damage_found, StoreError(StoreReason.CORRUPT, f"{path}: 2 rows are damaged"))
    await asyncio.to_thread(instrument.writer.stop)
    assert [each.name for each in path.parent.iterdir()] == ["r1.db.damaged-1"]
    assert [(event.kind, event.run_id) for event in recorded] == [(EventKind.RUN_DAMAGED, "r1")]
    assert [fault["code"] for fault in instrument.faults.recent()] == ["store.corrupt", "store.newer"]


async def test_a_catalogue_that_is_lost_is_a_fault_of_the_start(tmp_path: Path) -> None:
    loaded = LoadedSettings(Settings(store=StoreSettings(state_dir=tmp_path)), {}, None)
    instrument = await asyncio.to_thread(Instrument, loaded, LogService("info", tmp_path), Notifier({}))

    def lost() -> None:
        instrument.layout.prepare()
        instrument.layout.run_path("r1").write_bytes(b"garbage " * 2000)
        instrument._open_store()
        instrument.writer.stop()

    await asyncio.to_thread(lost)
    (fault,) = instrument.faults.recent()
    assert fault["code"] == "store.corrupt" and "instrument.db.corrupt-1" in fault["detail"]


@pytest.mark.parametrize(
    ("reason", "begun", "looked"),
    [
        (StoreReason.NOT_WRITABLE, [], True),
        (StoreReason.LOCKED, [], False),
        (StoreReason.NOT_WRITABLE, ["cell"], False),
    ],
)
async def test_a_start_that_fails_looks_for_a_cell_that_was_left_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: StoreReason, begun: list[str], looked: bool
) -> None:
    loaded = LoadedSettings(Settings(store=StoreSettings(state_dir=tmp_path)), {}, None)
    instrument = await asyncio.to_thread(Instrument, loaded, LogService("info", tmp_path), Notifier({}))
    orders: list[str] = []

    async def order(word: str) -> None:
        orders.append(word)

    async def fail() -> None:
        instrument._down += [(name, lambda: order("down")) for name in begun]
        raise StoreError(reason, "it does not open")

    monkeypatch.setattr(instrument.cell, "start", lambda: order("start"))
    monkeypatch.setattr(instrument.cell, "stop", lambda: order("stop"))
    monkeypatch.setattr(instrument, "_start_parts", fail)
    with pytest.raises(StoreError, match="does not open"):
        await instrument.start()
    assert orders == (["start", "stop"] if looked else ["down"] * len(begun))


async def test_a_failed_start_that_is_called_off_while_it_looks_for_a_cell_lets_go_of_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = LoadedSettings(Settings(store=StoreSettings(state_dir=tmp_path)), {}, None)
    instrument = await asyncio.to_thread(Instrument, loaded, LogService("info", tmp_path), Notifier({}))
    orders: list[str] = []
    looking = asyncio.Event()

    async def order(word: str) -> None:
        orders.append(word)

    async def look() -> None:
        looking.set()
        await asyncio.sleep(3600)

    async def fail() -> None:
        instrument._down.append(("lock", lambda: order("unlock")))
        raise StoreError(StoreReason.NOT_WRITABLE, "it does not open")

    monkeypatch.setattr(instrument.cell, "start", look)
    monkeypatch.setattr(instrument.cell, "stop", lambda: order("stop"))
    monkeypatch.setattr(instrument, "_start_parts", fail)
    start = asyncio.create_task(instrument.start())
    await looking.wait()
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert orders == ["stop", "unlock"]


async def test_a_store_without_room_for_a_run_is_not_ready(tmp_path: Path) -> None:
    loaded = LoadedSettings(Settings(store=StoreSettings(state_dir=tmp_path, min_free_mb=200)), {}, None)
    instrument = await asyncio.to_thread(Instrument, loaded, LogService("info", tmp_path), Notifier({}))

    def store() -> tuple[str, str, bool]:
        (part,) = [each for each in instrument.status_parts() if each.name == "store"]
        return part.state, part.reason, any(each.name == "store" for each in instrument.blocking())

    def open_store() -> None:
        instrument.layout.prepare()
        instrument._open_store()

    assert store()[0] == "stopped"
    await asyncio.to_thread(open_store)
    try:
        assert store() == ("ready", "", False)
        instrument.pulse.disk.add(0.0, 199, "")
        assert store() == ("failed", "store.disk_full", True)
        instrument.pulse.disk.add(5.0, 200, "")
        assert store() == ("ready", "", False)
    finally:
        await asyncio.to_thread(instrument.writer.stop)


async def test_a_store_that_does_not_open_is_an_error_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "STORE_OPENS_S", 0.1)
    loaded = LoadedSettings(Settings(store=StoreSettings(state_dir=tmp_path)), {}, None)
    instrument = await asyncio.to_thread(Instrument, loaded, LogService("info", tmp_path), Notifier({}))
    mended = threading.Event()
    monkeypatch.setattr(instrument, "_open_store", lambda: mended.wait(20))
    with pytest.raises(StoreError, match="did not open within") as caught:
        await instrument.start()
    mended.set()
    assert caught.value.reason is StoreReason.OVERLOADED
