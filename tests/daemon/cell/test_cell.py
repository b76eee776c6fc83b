from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest

import daemon.cell.cell as cell_module
import daemon.cell.device as device_module
from daemon.cell.cell import Cell
from daemon.cell.journal import ExperimentEnd
from daemon.cell.samples import CellRow
from daemon.config import CellSettings, PotentiostatSettings
from daemon.errors import CellReason, ExperimentError, ExperimentReason, PotentiostatError
from daemon.events import Event, EventKind
from daemon.parts import CellControl
from daemon.recipe import CellLimits, ExperimentSpec
from hw.drivers import DriverError, DriverReason
from hw.potentiostat.contract import CellMode, Potentiostat
from tests.daemon.cell.fake import INFO, Bench, FakePotentiostat, energising

DEADLINE_S = 0.6
CHARGE = "Charge at 1C until 4.2 V"
UNPLUGGED = PotentiostatError(CellReason.UNPLUGGED, "gone")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_module, "COMMAND_DEADLINE_S", 0.3)
    monkeypatch.setattr(device_module, "OPEN_DEADLINE_S", 0.6)
    monkeypatch.setattr(cell_module, "BACKOFF_FIRST_S", 0.02)
    monkeypatch.setattr(cell_module, "BACKOFF_MAX_S", 0.05)


class Rig:
    def __init__(self, bench: Bench, **limits: float) -> None:
        self.bench = bench
        self.rows: list[CellRow] = []
        self.events: list[Event] = []
        self.ends: list[ExperimentEnd] = []
        self.on_rows: Callable[[list[CellRow]], None] = self.rows.extend
        self.cell = Cell(
            lambda: FakePotentiostat(bench),
            PotentiostatSettings(sample_deadline_s=DEADLINE_S),
            CellSettings(capacity_mah=1.0, limits=CellLimits(**({"max_voltage_v": 4.3} | limits))),
            self.take_rows,
            self.events.append,
            on_experiment_end=self.ends.append,
        )

    def take_rows(self, rows: list[CellRow]) -> None:
        self.on_rows(rows)

    async def start(self, *steps: str, **spec: object) -> Rig:
        await self.cell.start()
        if steps:
            await self.cell.start_experiment(ExperimentSpec(steps=list(steps), **spec))  # type: ignore[arg-type]
        return self

    async def until(self, condition: Callable[[], bool], within_s: float = 6.0) -> float:
        """How long it took."""
        begun_s = time.monotonic()
        while not condition():
            assert time.monotonic() - begun_s < within_s, self.cell.status()
            await asyncio.sleep(0.005)
        return time.monotonic() - begun_s

    async def until_state(self, *states: str, within_s: float = 6.0) -> float:
        return await self.until(lambda: self.cell.state in states, within_s)

    def let_go(self) -> None:
        for gate in self.bench.hangs.values():
            gate.set()


@contextlib.asynccontextmanager
async def rigged(bench: Bench | None = None, **limits: float) -> AsyncIterator[Rig]:
    rig = Rig(bench or Bench(), **limits)
    try:
        yield rig
    finally:
        rig.let_go()
        await rig.cell.stop()
        await rig.until(lambda: not [t for t in threading.enumerate() if t.name.startswith("potentiostat")])
        assert not rig.bench.energised or rig.bench.unplugged


def implements(control: CellControl) -> CellControl:
    return control


async def test_life_without_an_experiment() -> None:
    async with rigged() as rig:
        implements(rig.cell)
        assert rig.cell.status().state == "stopped"
        await rig.start()
        await rig.until(lambda: len(rig.rows) > 5)
        status = rig.cell.status()
        assert (status.name, status.state, status.reason) == ("cell", "ready", "")
        assert status.values["state"] == "off"
        assert status.values["mode"] == "off"
        assert status.values["voltage_v"] == pytest.approx(3.6)
        assert status.values["host_loss"] == "cell-off"
        assert status.values["step"] is None
        assert rig.cell.info == INFO
        await rig.cell.stop()
        await rig.cell.stop()
        assert rig.cell.status().state == "stopped"
        assert energising(rig.bench.calls) == []


async def test_runs_an_experiment_to_its_end() -> None:
    async with rigged() as rig:
        await rig.start("Charge at 2C for 100 s", "Rest for 50 s", cycles=2)
        end = await rig.cell.finished()
        assert end == ExperimentEnd("")
        assert rig.ends == [end]
        assert rig.cell.state == "idle"
        assert {(row.cycle, row.step) for row in rig.rows if row.cycle >= 0} == {(0, 0), (0, 1), (1, 0), (1, 1)}
        assert await rig.cell.finished() == end, "the last one's, at once"
        assert rig.rows[-1].charge_mah == pytest.approx(rig.bench.charge_mah - 0.5, abs=0.02)
        assert [row.t_s for row in rig.rows] == sorted(row.t_s for row in rig.rows)


async def test_status_shows_the_step() -> None:
    async with rigged() as rig:
        await rig.start("Rest for 1 s", CHARGE)
        await rig.until(lambda: rig.bench.energised)
        await asyncio.sleep(0.05)
        values = rig.cell.status().values
        assert (values["state"], values["step"], values["cycle"]) == ("running", 1, 0)
        assert values["step_text"] == CHARGE
        assert 0 < values["step_progress"] < 1
        assert values["current_ma"] == pytest.approx(1.0)
        assert values["sample_age_s"] < DEADLINE_S
        assert values["limits"]["max_voltage_v"] == 4.3
        assert values["off_confirmed"]


async def test_finished_needs_an_experiment() -> None:
    async with rigged() as rig:
        await rig.start()
        with pytest.raises(ExperimentError) as caught:
            await rig.cell.finished()
        assert caught.value.reason is ExperimentReason.NOT_RUNNING


@pytest.mark.parametrize("steps", [["Charge at 1C"], ["Charge at 1C until 4.5 V"], ["Charge at 900 mA for 1 s"]])
async def test_a_bad_experiment_touches_nothing(steps: list[str]) -> None:
    async with rigged() as rig:
        await rig.start()
        with pytest.raises(ExperimentError, match="step 1"):
            await rig.cell.start_experiment(ExperimentSpec(steps=steps))
        assert energising(rig.bench.calls) == []
        assert rig.cell.state == "off"


async def test_a_limit_trips_and_everybody_is_told() -> None:
    async with rigged(max_voltage_v=3.8) as rig:
        await rig.start("Charge at 1C for 1 hour")
        end = await asyncio.wait_for(rig.cell.finished(), 3)
        assert end.reason == "cell.limit"
        assert rig.cell.state == "tripped"
        status = rig.cell.status()
        assert (status.state, status.reason) == ("degraded", "cell.limit")
        assert "max_voltage_v = 3.8" in status.detail and status.remedy
        (event,) = rig.events
        assert event.kind is EventKind.CELL_LIMIT
        assert event.magnitude > 3.8
        assert event.t_s in [row.t_s for row in rig.rows]
        await rig.cell.off()
        assert rig.cell.status().state == "ready"


async def test_pause_and_resume() -> None:
    async with rigged() as rig:
        await rig.start("Charge at 1C for 300 s")
        await rig.until(lambda: len(rig.rows) > 10)
        await rig.cell.pause()
        assert rig.cell.state == "paused" and not rig.bench.energised
        await asyncio.sleep(0.1)
        assert not rig.bench.energised
        await rig.cell.resume()
        assert rig.bench.energised
        assert (await rig.cell.finished()).reason == ""
        assert rig.bench.charge_mah == pytest.approx(0.5 + 300 / 3600, abs=0.02)


async def test_off_is_prompt_ends_the_experiment_and_holds() -> None:
    async with rigged() as rig:
        await rig.start(CHARGE)
        await rig.until(lambda: len(rig.rows) > 5)
        begun_s = time.monotonic()
        await rig.cell.off("asked in a test")
        assert time.monotonic() - begun_s < 0.3
        assert not rig.bench.energised
        assert rig.cell.state == "off"
        assert (await rig.cell.finished()).reason == "asked in a test"
        await asyncio.sleep(0.1)
        assert len(energising(rig.bench.calls)) == 1


async def test_off_goes_right_after_a_call_under_way_and_ahead_of_the_queue() -> None:
    async with rigged() as rig:
        await rig.start()
        await rig.until(lambda: bool(rig.rows))
        gate = rig.bench.hang("read")
        await asyncio.sleep(0.02)
        start = asyncio.create_task(rig.cell.start_experiment(ExperimentSpec(steps=[CHARGE])))
        await asyncio.sleep(0.02)
        off = asyncio.create_task(rig.cell.off())
        await asyncio.sleep(0.02)
        gate.set()
        await off
        with pytest.raises(ExperimentError) as caught:
            await start
        assert caught.value.reason is ExperimentReason.CANCELLED
        assert energising(rig.bench.calls) == []
        assert rig.cell.state == "off"


async def test_off_overtakes_whatever_waits() -> None:
    async with rigged() as rig:
        await rig.start()
        await rig.until(lambda: bool(rig.rows))
        assert rig.cell._link is not None
        gate = rig.bench.hang("read")
        await asyncio.sleep(0.1)
        seen: list[bool] = []
        rig.cell._link.thread.submit(lambda: seen.append("cell_off" in rig.bench.calls))
        off = asyncio.create_task(rig.cell.off())
        await asyncio.sleep(0.02)
        gate.set()
        await off
        await rig.until(lambda: bool(seen))
        assert seen == [True]


async def test_off_forbids_the_step_that_a_read_under_way_would_begin() -> None:
    async with rigged() as rig:
        await rig.start("Rest for 300 s", CHARGE)
        gate = rig.bench.hang("read")
        await asyncio.sleep(0.35)  # the rest is over in what this read will bring
        off = asyncio.create_task(rig.cell.off())
        await asyncio.sleep(0.01)
        gate.set()
        await off
        assert energising(rig.bench.calls) == []


async def test_off_always_works_however_often() -> None:
    async with rigged() as rig:
        await rig.start()
        await rig.cell.off()
        await rig.start(CHARGE)
        await asyncio.gather(*(rig.cell.off() for _ in range(10)))
        assert not rig.bench.energised
        await rig.cell.start_experiment(ExperimentSpec(steps=[CHARGE]))
        assert rig.bench.energised
        await rig.cell.off()


async def test_off_that_is_refused_once_is_tried_again() -> None:
    async with rigged() as rig:
        await rig.start(CHARGE)
        rig.bench.fail("cell_off", PotentiostatError(CellReason.REFUSED, "busy"))
        await rig.cell.off()
        assert not rig.bench.energised and rig.cell.state == "off"


async def test_off_that_is_never_confirmed_is_an_error_and_goes_on_being_tried() -> None:
    async with rigged() as rig:
        await rig.start(CHARGE)
        rig.bench.fail("cell_off", *[UNPLUGGED] * 7)
        with pytest.raises(PotentiostatError) as caught:
            await rig.cell.off()
        assert caught.value.reason is CellReason.IN_DOUBT
        await rig.until(lambda: not rig.bench.energised)
        await rig.until_state("tripped", "off")
        assert rig.cell.status().values["off_confirmed"]


async def test_found_on_is_switched_off_and_reported() -> None:
    async with rigged(Bench(mode=CellMode.GALVANOSTATIC, set_ma=2.0)) as rig:
        await rig.start()
        assert not rig.bench.energised
        assert rig.cell.status().reason == "cell.found_on"
        assert rig.events[0].kind is EventKind.CELL_LOST and "found on" in rig.events[0].detail


async def test_unplugging_is_reported_and_replugging_leaves_the_cell_off() -> None:
    async with rigged() as rig:
        await rig.start(CHARGE)
        rig.bench.unplugged = True
        await rig.until_state("lost")
        assert (await rig.cell.finished()).reason == "cell.in_doubt"
        await rig.until(lambda: "attempt" in rig.cell.status().detail)
        status = rig.cell.status()
        assert (status.state, status.reason) == ("failed", "cell.in_doubt")
        with pytest.raises(PotentiostatError):
            await rig.cell.start_experiment(ExperimentSpec(steps=[CHARGE]))
        with pytest.raises(PotentiostatError):
            await rig.cell.off()
        rig.bench.unplugged = False  # and the cell is still on: nobody could switch it off
        await rig.until_state("tripped")
        assert not rig.bench.energised
        assert [event.kind for event in rig.events] == [EventKind.CELL_LOST] * 2
        assert "found on" in rig.events[1].detail
        await asyncio.sleep(0.1)
        assert len(energising(rig.bench.calls)) == 1, "it stays off until an operator starts it"
        await rig.cell.start_experiment(ExperimentSpec(steps=[CHARGE]))
        assert rig.cell.state == "running"


async def test_a_device_that_lost_its_host_and_its_cell_is_shown_as_broken_after_its_return() -> None:
    async with rigged() as rig:
        await rig.start(CHARGE)
        rig.bench.unplugged = True
        await rig.until_state("lost")
        rig.bench.mode = CellMode.OFF  # its own loss of host
        rig.bench.unplugged = False
        await rig.until_state("tripped")
        assert "opened anew, with the cell off" in rig.cell.status().detail
        assert rig.cell.status().reason == "cell.unplugged"
        await rig.cell.off()
        assert rig.cell.state == "off"


async def test_silence_is_noticed_in_time_and_recovered_from() -> None:
    async with rigged() as rig:
        await rig.start(CHARGE)
        await rig.until(lambda: len(rig.rows) > 5)
        rig.bench.silent = True
        took_s = await rig.until(lambda: not rig.bench.energised)
        assert took_s < DEADLINE_S + 0.4
        await rig.until(lambda: bool(rig.events))
        assert rig.events[0].kind is EventKind.CELL_LOST
        assert (await rig.cell.finished()).reason == "cell.stalled"
        rig.bench.silent = False
        await rig.until_state("tripped")
        assert not rig.bench.energised


async def test_a_missing_device_is_waited_for() -> None:
    async with rigged() as rig:
        rig.bench.fail("open", *[PotentiostatError(CellReason.NOT_FOUND, "no such device")] * 3)
        await rig.start()
        status = rig.cell.status()
        assert (status.state, status.reason) == ("failed", "cell.not_found")
        with pytest.raises(PotentiostatError):
            await rig.cell.start_experiment(ExperimentSpec(steps=[CHARGE]))
        await rig.until(lambda: rig.bench.opened == 1)
        await rig.until_state("off")
        assert rig.cell.status().state == "ready"


async def test_the_owner_shows_that_it_is_alive_while_the_device_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cell_module, "PAUSE_SLICE_S", 0.02)
    monkeypatch.setattr(cell_module, "BACKOFF_FIRST_S", 30.0)
    async with rigged() as rig:
        rig.bench.fail("open", PotentiostatError(CellReason.NOT_FOUND, "no such device"))
        await rig.start()
        for _ in range(3):
            before_s = rig.cell.progress_s
            await rig.until(lambda before_s=before_s: rig.cell.progress_s > before_s)
        assert rig.bench.opened == 0


async def test_the_owner_shows_that_it_is_alive_while_a_call_is_under_way() -> None:
    async with rigged() as rig:
        await rig.start()
        rig.bench.hang("read")
        await rig.until(lambda: rig.bench.calls[-1] == "read")
        before_s = rig.cell.progress_s
        await rig.until(lambda: rig.cell.progress_s > before_s + 0.1)
        rig.let_go()


async def test_a_wrong_configuration_is_an_error_of_the_start() -> None:
    def broken() -> Potentiostat:
        raise DriverError(DriverReason.BAD_OPTION, "no such option")

    cell = Cell(broken, PotentiostatSettings(), CellSettings(), lambda _: None, lambda _: None)
    with pytest.raises(DriverError):
        await cell.start()
    await cell.stop()


@pytest.mark.parametrize("name", ["read", "keep_alive"])
async def test_a_call_that_hangs_is_got_round(name: str) -> None:
    async with rigged() as rig:
        await rig.start(CHARGE)
        await rig.until(lambda: len(rig.rows) > 5)
        gate = rig.bench.hang(name)
        took_s = await rig.until(lambda: not rig.bench.energised)
        assert took_s < DEADLINE_S + 1.0
        assert (await rig.cell.finished()).reason == "cell.hung"
        assert rig.events[0].kind is EventKind.CELL_LOST
        assert f"did not return from {name}" in rig.events[0].detail
        await rig.until(lambda: rig.cell.status().values["off_confirmed"])
        del rig.bench.hangs[name]
        await rig.until_state("tripped")
        assert rig.cell.status().values["stuck_calls"] == 1
        gate.set()
        await rig.until_state("tripped", "lost")
        assert not rig.bench.energised


async def test_a_set_point_that_hangs_and_takes_effect_late_is_undone() -> None:
    async with rigged() as rig:
        await rig.start()
        await rig.until(lambda: bool(rig.rows))
        gate = rig.bench.hang("set_current")
        with pytest.raises(PotentiostatError) as caught:
            await rig.cell.start_experiment(ExperimentSpec(steps=[CHARGE]))
        assert caught.value.reason is CellReason.HUNG
        await rig.until_state("tripped", "off")
        gate.set()  # the late call energises the cell now
        await rig.until(lambda: rig.bench.calls.count("close") >= 1)
        await asyncio.sleep(0.1)
        assert not rig.bench.energised


async def test_a_hang_with_the_cell_off_raises_no_doubt() -> None:
    async with rigged() as rig:
        await rig.start()
        await rig.until(lambda: bool(rig.rows))
        rig.bench.hang("read")
        await rig.until(lambda: rig.cell.status().values["stuck_calls"] == 1)
        assert rig.cell.status().reason == "cell.hung"
        assert rig.cell.status().values["off_confirmed"]
        await rig.cell.off()


async def test_stop_does_not_wait_for_an_opening_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_module, "OPEN_DEADLINE_S", 60.0)
    monkeypatch.setattr(cell_module, "STOP_PATIENCE_S", 0.1)
    async with rigged() as rig:
        rig.bench.hang("open")
        start = asyncio.create_task(rig.cell.start())
        await asyncio.sleep(0.05)
        start.cancel()
        begun_s = time.monotonic()
        await rig.cell.stop()
        assert time.monotonic() - begun_s < 1.0


async def test_off_while_a_call_hangs_is_answered() -> None:
    async with rigged() as rig:
        await rig.start(CHARGE)
        rig.bench.hang("read")
        await asyncio.sleep(0.06)
        begun_s = time.monotonic()
        await rig.cell.off()
        assert time.monotonic() - begun_s < DEADLINE_S + 1.0
        assert not rig.bench.energised


async def test_everything_hangs_is_in_doubt_and_bounded() -> None:
    async with rigged() as rig:
        await rig.start(CHARGE)
        gates = [rig.bench.hang("read"), rig.bench.hang("cell_off")]
        await rig.until(lambda: rig.cell.status().values["stuck_calls"] >= 4)
        with pytest.raises(PotentiostatError) as caught:
            await rig.cell.off()
        assert caught.value.reason is CellReason.IN_DOUBT
        status = rig.cell.status()
        assert (status.state, status.reason) == ("failed", "cell.in_doubt")
        await asyncio.sleep(0.3)
        assert rig.cell.status().values["stuck_calls"] == 4
        assert rig.bench.opened == 1, "no further thread is put at risk"
        for gate in gates:
            gate.set()
        rig.bench.hangs.clear()
        await rig.until(lambda: not rig.bench.energised)
        await rig.until_state("tripped")


async def test_a_blocked_event_loop_does_not_leave_the_cell_on() -> None:
    async with rigged() as rig:
        await rig.start(CHARGE)
        await rig.until(lambda: len(rig.rows) > 5)
        time.sleep(DEADLINE_S + 0.15)  # noqa: ASYNC251 - the loop is blocked on purpose
        assert not rig.bench.energised, "while the loop is still blocked"
        await rig.until_state("tripped")
        assert rig.cell.status().reason == "cell.unwatched"
        assert rig.events[0].kind is EventKind.CELL_LOST


async def test_keep_alive_stops_when_the_owner_does_not_progress() -> None:
    async with rigged(Bench(info=replace(INFO, clock_rate=100.0))) as rig:
        await rig.start()
        await rig.until(lambda: "keep_alive" in rig.bench.calls)
        before = rig.bench.calls.count("keep_alive")
        time.sleep(1.2)  # noqa: ASYNC251 - the loop is blocked on purpose
        assert rig.bench.calls.count("keep_alive") <= before + 1


async def test_a_record_that_cannot_be_kept_stops_the_experiment() -> None:
    async with rigged() as rig:
        await rig.start(CHARGE)

        def full(rows: list[CellRow]) -> None:
            raise OSError("disk full")

        rig.on_rows = full
        end = await asyncio.wait_for(rig.cell.finished(), 2)
        assert end.reason == "cell.not_recorded"
        assert not rig.bench.energised
        assert rig.cell.status().reason == "cell.not_recorded"


async def test_stop_during_an_experiment_switches_off_and_ends_it() -> None:
    async with rigged() as rig:
        await rig.start(CHARGE)
        await rig.cell.stop()
        assert not rig.bench.energised
        assert rig.ends == [ExperimentEnd("stopped")]
        assert rig.bench.calls[-1] == "close"
        await rig.start("Charge at 1C for 10 s")
        assert (await rig.cell.finished()).reason == ""


async def test_cancelling_the_owner_switches_off() -> None:
    async with rigged() as rig:
        await rig.start(CHARGE)
        assert rig.cell._owner is not None
        rig.cell._owner.cancel()
        assert await rig.until(lambda: not rig.bench.energised) < DEADLINE_S / 2, "without waiting for the deadline"
        assert rig.cell.status().state == "failed"


def test_a_loop_that_ends_without_a_stop_leaves_the_cell_off_at_exit() -> None:
    rig = Rig(Bench())

    async def leave() -> None:
        await rig.start(CHARGE)
        rig.bench.fail("cell_off", *[UNPLUGGED] * 3)
        assert rig.cell._owner is not None
        rig.cell._owner.cancel()
        await asyncio.wait((rig.cell._owner,))

    asyncio.run(leave())
    assert rig.cell._link is not None
    rig.cell._link.thread._at_exit()
    assert not rig.bench.energised
    assert rig.bench.calls[-1] == "close"


async def test_events_and_rows_share_the_devices_clock() -> None:
    async with rigged() as rig:
        await rig.start(CHARGE)
        await rig.until(lambda: len(rig.rows) > 5)
        rig.bench.unplugged = True
        await rig.until(lambda: bool(rig.events))
        (event,) = rig.events[:1]
        assert rig.rows[-1].t_s <= event.t_s < rig.rows[-1].t_s + 0.5 * INFO.clock_rate
        assert event.detected_host_t_s == pytest.approx(time.monotonic(), abs=1.0)


async def test_nothing_is_confirmed_before_a_potentiostat_has_answered() -> None:
    async with rigged(Bench(mode=CellMode.GALVANOSTATIC, set_ma=2.0)) as rig:
        rig.bench.unplugged = True
        await rig.start()
        assert not rig.cell.status().values["off_confirmed"]
        with pytest.raises(PotentiostatError, match="no potentiostat has answered since the start") as caught:
            await rig.cell.off()
        assert caught.value.reason is CellReason.IN_DOUBT
        rig.bench.unplugged = False
        await rig.until_state("tripped")
        assert rig.cell.status().values["off_confirmed"] and not rig.bench.energised
        await rig.cell.off()


async def test_a_cell_that_was_left_on_is_switched_off_past_an_opening_that_hangs() -> None:
    async with rigged(Bench(mode=CellMode.GALVANOSTATIC, set_ma=2.0)) as rig:
        rig.bench.hang("open")
        await rig.start()
        await rig.until(lambda: not rig.bench.energised)


async def test_a_device_that_doubts_its_rest_is_not_taken_for_off() -> None:
    async with rigged() as rig:
        await rig.start()
        await rig.until(lambda: bool(rig.rows))
        doubt = PotentiostatError(CellReason.IN_DOUBT, "the cell may be on")
        rig.bench.fail("cell_off", *[doubt] * 6)
        rig.bench.fail("read", doubt)
        await rig.until_state("lost")
        assert rig.cell.status().reason == "cell.in_doubt" and not rig.cell.status().values["off_confirmed"]


async def test_a_start_that_is_cancelled_leaves_the_cell_off() -> None:
    async with rigged() as rig:
        await rig.start()
        await rig.until(lambda: bool(rig.rows))
        gate = rig.bench.hang("set_current")
        start = asyncio.create_task(rig.cell.start_experiment(ExperimentSpec(steps=[CHARGE])))
        await rig.until(lambda: rig.bench.calls[-1].startswith("set_current"))
        start.cancel()
        with pytest.raises(asyncio.CancelledError):
            await start
        gate.set()
        await rig.until(lambda: rig.bench.calls.count("cell_off") >= 1)
        await asyncio.sleep(0.1)
        assert not rig.bench.energised and rig.cell.state == "off"


async def test_a_pause_is_not_undone_by_a_resume_that_was_ordered_before() -> None:
    async with rigged() as rig:
        await rig.start(CHARGE)
        await rig.cell.pause()
        gate = rig.bench.hang("read")
        await asyncio.sleep(0.06)
        resume = asyncio.create_task(rig.cell.resume())
        await asyncio.sleep(0.01)
        pause = asyncio.create_task(rig.cell.pause())
        await asyncio.sleep(0.01)
        gate.set()
        await pause
        with pytest.raises(ExperimentError) as caught:
            await resume
        assert caught.value.reason is ExperimentReason.CANCELLED
        await asyncio.sleep(0.1)
        assert not rig.bench.energised and rig.cell.state == "paused"
        await rig.cell.resume()
        assert rig.bench.energised
