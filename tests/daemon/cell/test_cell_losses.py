"""What becomes of the cell when a potentiostat is lost, hangs or does not confirm."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

import daemon.cell.cell as cell_module
import daemon.cell.device as device_module
from daemon.cell.cell import Cell
from daemon.config import CellSettings, PotentiostatSettings
from daemon.errors import CellReason, PotentiostatError
from daemon.events import EventKind
from daemon.recipe import ExperimentSpec
from hw.drivers import DriverError, DriverReason
from hw.potentiostat.contract import CellMode, Potentiostat
from tests.daemon.cell.fake import INFO, Bench, energising
from tests.daemon.cell.whole_cell import CHARGE, DEADLINE_S, UNPLUGGED, rigged

pytestmark = pytest.mark.usefixtures("quick_cell")


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
