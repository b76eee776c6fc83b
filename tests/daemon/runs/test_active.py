import asyncio
from dataclasses import replace

import numpy as np
import pytest

from daemon.cell.samples import CellRow
from daemon.engine.measures import FrameFlag
from daemon.events import Event, EventKind
from daemon.parts import RunSummary
from daemon.photometry.clock import ClockRelation
from daemon.recipe import Recipe
from daemon.runs import active as module
from daemon.runs.active import ActiveRun, Ending
from tests.daemon.runs.test_recorder import batch


class Writer:
    def __init__(self):
        self.drops = []

    def put_drop(self, *drop):
        self.drops.append(drop)


class FakeRecorder:
    """Keeps what it is given; `fault` is raised by the next frames."""

    def __init__(self):
        self.got, self.fault = [], None
        self.frames, self.last_t_s = 0, 0.0

    def add(self, frames):
        if self.fault is not None:
            raise self.fault
        self.got.append(("frames", len(frames)))
        self.frames += len(frames)
        self.last_t_s = float(frames.t_s[-1])

    def add_cell(self, rows):
        self.got.append(("cell", [row.t_s for row in rows]))

    def record(self, events):
        self.got.append(("events", [event.kind for event in events]))


@pytest.fixture
async def active(tmp_path):
    summary = RunSummary("r", "r", "running", "2026-01-01T00:00:00+00:00", None, tmp_path / "r.db", {})
    one = ActiveRun(summary, Recipe(), Writer())
    one.recorder = FakeRecorder()
    one.clock = ClockRelation("same", "same")
    yield one
    one.close()


def row(t_s, host_t_s=0.0):
    return CellRow(t_s, host_t_s, 3.7, 1.0, 0, 0, "charge", 0.0)


async def digested(active):
    digest = asyncio.create_task(active.digest())
    await active.drain()
    await digest
    return active.recorder.got


async def test_everything_is_digested_in_the_order_it_came(active):
    active.add_batch(replace(batch(0, 10), camera_t0_s=100.0))
    active.add_rows([row(100.05)])
    assert active.add_event(Event(EventKind.CAMERA_LOST, 0.1, 0.1))
    active.add_batch(replace(batch(10, 5), camera_t0_s=100.0))
    assert active.depth == 4
    assert np.isnan(active.t_s)
    got = await digested(active)
    assert [kind for kind, _ in got] == ["frames", "cell", "events", "frames"]
    assert got[1][1] == [pytest.approx(0.05)]
    assert active.t_s == pytest.approx(0.14) and active.depth == 0


async def test_cell_rows_wait_for_the_first_frame_and_what_lies_before_it_is_left_out(active):
    active.add_rows([row(99.0), row(100.5)])
    active.add_rows([row(101.0)])
    assert active.depth == 0
    active.add_batch(replace(batch(0, 10), camera_t0_s=100.0))
    active.add_rows([row(101.5)])
    got = await digested(active)
    assert got[1] == ("cell", [0.5, 1.0, 1.5])


async def test_a_camera_clock_that_began_anew_dates_the_cell_by_its_new_zero(active):
    active.add_batch(replace(batch(0, 10), camera_t0_s=100.0))
    active.add_batch(replace(batch(10, 10), camera_t0_s=40.0))
    active.add_rows([row(42.0)])
    assert (await digested(active))[-1] == ("cell", [2.0])


async def test_rows_without_a_clock_are_not_kept(active):
    active.clock = None
    active.add_rows([row(1.0)])
    active.add_batch(batch(0, 3))
    assert await digested(active) == [("frames", 3)]


async def test_a_full_queue_drops_frames_counts_them_and_holds_cell_rows_back(active, monkeypatch):
    for n in range(module.QUEUE_ITEMS):
        active.add_batch(replace(batch(n, 1), camera_t0_s=0.0))
    assert active.last_frame < 900
    active.add_batch(replace(batch(900, 7), camera_t0_s=0.0))
    assert active.last_frame == 906 and active.last_stamp is not None  # numbers of dropped frames are taken too
    assert active.dropped_frames == 7
    assert active._writer.drops == [("science", "full", 7, 9.0)]
    active.add_rows([row(1.0)])
    assert active.depth == module.QUEUE_ITEMS
    digest = asyncio.create_task(active.digest())
    while active.depth:
        await asyncio.sleep(0.005)
    active.add_rows([row(2.0)])
    await active.drain()
    await digest
    assert active.recorder.got[-1] == ("cell", [1.0, 2.0])
    assert active.recorder.frames == module.QUEUE_ITEMS


async def test_events_are_refused_by_a_full_queue(active):
    for n in range(module.QUEUE_ITEMS):
        active.add_batch(replace(batch(n, 1), camera_t0_s=0.0))
    assert not active.add_event(Event(EventKind.CELL_LIMIT, 1.0, 1.0))
    assert active.depth == module.QUEUE_ITEMS and active.left_events() == []


async def test_events_are_refused_once_the_queue_is_to_end(active):
    assert active.add_event(Event(EventKind.CAMERA_LOST, 1.0, 1.0))
    assert await digested(active) == [("events", ["camera_lost"])]
    assert not active.add_event(Event(EventKind.CELL_LIMIT, 2.0, 2.0))
    assert active.depth == 0 and active.left_events() == []


async def test_events_behind_a_fault_of_the_science_are_left_and_further_ones_refused(active):
    active.recorder.fault = RuntimeError("singular matrix")
    active.add_batch(batch(0, 3))
    event = Event(EventKind.CELL_LIMIT, 1.0, 1.0)
    assert active.add_event(event)
    with pytest.raises(RuntimeError, match="singular"):
        await active.digest()
    assert not active.add_event(event)
    assert active.left_events() == [event] and active.left_events() == []


async def test_the_first_who_ends_it_names_the_reason(active):
    waiting = asyncio.create_task(active.ended())
    await asyncio.sleep(0)
    active.end(Ending("cell.limit", "too hot"))
    active.end(Ending())
    assert await waiting == Ending("cell.limit", "too hot")
    assert await active.ended() == Ending("cell.limit", "too hot")


async def test_an_impatient_waiter_does_not_end_the_run(active):
    waiting = asyncio.create_task(active.ended())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    active.end(Ending("late", ""))
    assert (await active.ended()).reason == "late"


async def test_a_fault_of_the_science_ends_the_digest_with_it(active):
    active.recorder.fault = RuntimeError("singular matrix")
    active.add_batch(batch(0, 3))
    with pytest.raises(RuntimeError, match="singular"):
        await active.digest()


async def test_how_long_frames_show_nothing_is_counted_and_why(active):
    def flagged(first, *flags):
        count = len(flags)
        times = {"t_s": np.arange(first, first + count) * 2.0, "host_t_s": 50.0 + np.arange(first, first + count) * 2.0}
        return replace(batch(first, count), flags=np.array(flags, np.uint16), **times)

    dark, gap, lost = int(FrameFlag.DARK), int(FrameFlag.GAP_BEFORE), int(FrameFlag.DRIFT_UNKNOWN)
    told = []
    for one in (flagged(0, dark), flagged(1, dark), flagged(2, 0, gap, dark, dark), flagged(6, lost), flagged(7, gap)):
        active.add_batch(one)
        told.append((active.blank_s, active.blank_why))
    assert told == [
        (0.0, "no light falls on it"),
        (2.0, "no light falls on it"),
        (4.0, "no light falls on it"),
        (6.0, "it shows another scene"),
        (0.0, ""),
    ]
