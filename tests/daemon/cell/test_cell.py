from __future__ import annotations

import asyncio
import time

import pytest

from daemon.cell.journal import ExperimentEnd
from daemon.cell.samples import CellRow
from daemon.errors import ExperimentError, ExperimentReason
from daemon.events import EventKind
from daemon.parts import CellControl
from daemon.recipe import ExperimentSpec
from tests.daemon.cell.fake import INFO, Bench, energising
from tests.daemon.cell.whole_cell import CHARGE, DEADLINE_S, UNPLUGGED, Rig, rigged

pytestmark = pytest.mark.usefixtures("quick_cell")


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
