import asyncio
from collections import Counter
from types import SimpleNamespace

import pytest

from daemon import pulse as module
from daemon.diagnostics.metrics import Metrics
from daemon.engine.book import EngineBook, Totals
from daemon.errors import StoreError, StoreReason
from daemon.parts import PartStatus
from daemon.pulse import FrameAccounts, Pulse


class Part(SimpleNamespace):
    """Remembers calls of any method it was not given."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        self.__dict__.setdefault("calls", [])
        return lambda *arguments: self.calls.append((name, *arguments))


def instrument(**changes):
    stats = SimpleNamespace(
        progress_s=1.0, lost_frames=0, stored_frames=0, loss_bound_s=1.0, wal_bytes=10, commits=0,
        last_commit_took_s=0.01, chunk_bytes=100, queue_ops=0, queue_ops_bound=4096, failed_commits=0, lag_s=0.0,
    )  # fmt: skip
    parts = {
        "metrics": Metrics(),
        "stats": stats,
        "writer": SimpleNamespace(stats=lambda: stats),
        "engine": SimpleNamespace(book=EngineBook(), restarts=0, camera_opens=0),
        "status_parts": list,
        "runs": Part(
            calls=[],
            dropped_frames=0,
            unclaimed_frames=0,
            queue_depth=0,
            current=lambda: None,
            clock=None,
            live_summary=dict,
            blank=(0.0, ""),
        ),
        "cell": SimpleNamespace(opens=0, progress_s=1.0),
        "watchdog": Part(calls=[]),
        "faults": Part(calls=[]),
        "logs": SimpleNamespace(dropped_lines=0),
        "layout": SimpleNamespace(free_mb=lambda: 10_000, state_dir="/state"),
        "settings": SimpleNamespace(
            store=SimpleNamespace(min_free_mb=200, low_free_mb=1000, low_full_h=24.0),
            engine=SimpleNamespace(link_batches=64),
        ),
        "keeper": SimpleNamespace(deleted=0),
        "warnings": [],
        "disk_low_errors": [],
    }
    one = SimpleNamespace(**parts | changes)
    one.disk_low = one.disk_low_errors.append
    one.warn_of_disk = lambda sentence, free_mb: one.warnings.append((sentence, free_mb))
    return one


def beat(captured, measured, idle=0, dropped=None, **more):
    return {
        "captured": captured, "measured": measured, "idle": idle, "dropped": dropped or {}, "ring_depth": 0,
        "ring_bound": 64, "link_depth": 1, "last_frame_host_t_s": 5.0, "busy_s": 0.001 * (measured + idle), **more,
    }  # fmt: skip


def sample(one, name, **labels):
    return one.metrics.registry.get_sample_value(name, labels)


def test_every_frame_is_somewhere():
    engine = Totals(100, 10, 80, Counter({"ring.full": 4, "camera.lost": 2}))
    accounts = FrameAccounts.of(engine, {"science.full": 3, "store.full": 0}, 75)
    assert accounts.dropped == {"ring.full": 4, "camera.lost": 2, "science.full": 3}
    assert accounts.in_flight == 100 - 10 - 75 - 9
    fields = accounts.as_dict()
    assert type(fields["dropped"]) is dict
    assert (
        fields["captured"] == fields["idle"] + fields["stored"] + sum(fields["dropped"].values()) + accounts.in_flight
    )


def test_counting_follows_engine_daemon_and_store():
    one = instrument()
    pulse = Pulse(one)
    one.engine.book.heartbeat(beat(50, 40, 5, {"ring.full": 2}))
    one.stats.stored_frames = 30
    one.stats.lost_frames = 1
    one.runs.dropped_frames = 4
    pulse._count()
    accounts = pulse.accounts
    assert (accounts.captured, accounts.idle, accounts.measured, accounts.stored) == (50, 5, 40, 30)
    assert accounts.dropped == {"ring.full": 2, "science.full": 4, "store.full": 1}
    assert b'instrument_queue_dropped_items_total{queue="science"} 4.0' in one.metrics.text()
    assert accounts.in_flight == 8


def test_counters_rise_by_what_is_new_and_never_fall():
    one = instrument()
    pulse = Pulse(one)
    assert pulse._rise("x", 5) == 5
    assert pulse._rise("x", 7) == 2
    assert pulse._rise("x", 3) == 0  # it began anew
    assert pulse._rise("x", 4) == 1


def test_an_engine_before_its_first_word_counts_nothing():
    one = instrument()
    Pulse(one)._count()
    one.engine.book.heartbeat(beat(0, 0, last_frame_host_t_s=float("nan")))
    Pulse(one)._count()
    assert one.metrics.last_frame_age_s is None or one.metrics.last_frame_age_s != one.metrics.last_frame_age_s


def test_frames_that_show_nothing_for_long_are_told_once_each_time():
    one = instrument()
    pulse = Pulse(one)
    for blank_s in (0.0, 9.0, 10.0, 11.0, 200.0, 0.0, 3.0, 12.0):
        one.runs.blank = (blank_s, "no light falls on it")
        pulse._look()
    assert [call[:2] for call in one.faults.calls] == [("note", "run.nothing_shown")] * 2
    assert one.faults.calls[0][2] == "nothing could be measured for 10 s: no light falls on it"


def test_the_store_beats_only_while_it_gets_on():
    one = instrument()
    pulse = Pulse(one)
    for progress_s in (1.0, 1.0, 2.0):
        one.stats.progress_s = progress_s
        pulse._beat()
    assert [name for _, name in one.watchdog.calls if name != "cell"] == ["loop", "store", "loop", "loop", "store"]


def test_the_cell_beats_while_its_owner_gets_on_with_or_without_samples():
    one = instrument()
    pulse = Pulse(one)
    for progress_s in (float("nan"), 1.0, 1.0, 2.0):
        one.cell.progress_s = progress_s
        pulse._beat()
    assert [name for _, name in one.watchdog.calls].count("cell") == 2


def test_measures_that_no_run_took_are_dropped_for_that_reason():
    one = instrument()
    one.engine.book.heartbeat(beat(50, 50))
    one.runs.unclaimed_frames = 20
    one.stats.stored_frames = 30
    pulse = Pulse(one)
    pulse._count()
    assert pulse.accounts.dropped == {"science.no_run": 20} and pulse.accounts.in_flight == 0


@pytest.mark.parametrize(("free_mb", "running", "ends"), [(100, True, True), (100, False, False), (500, True, False)])
async def test_a_disk_that_fills_up_ends_a_run(free_mb, running, ends):
    one = instrument()
    one.layout.free_mb = lambda: free_mb
    one.runs.current = lambda: SimpleNamespace(run_id="r1") if running else None
    await Pulse(one)._space()
    assert [error.reason for error in one.disk_low_errors] == [StoreReason.DISK_FULL] * ends
    if ends:
        assert "100 MB" in one.disk_low_errors[0].detail and "200 MB" in one.disk_low_errors[0].detail


async def test_a_state_directory_that_is_gone_is_a_fault_not_an_end():
    def gone():
        raise StoreError(StoreReason.NOT_WRITABLE, "'/state' is gone")

    one = instrument()
    one.layout.free_mb = gone
    await Pulse(one)._space()
    ((name, error),) = one.faults.calls
    assert name == "record" and error.reason is StoreReason.NOT_WRITABLE


async def test_it_looks_at_the_disk_now_and_then_only():
    looks = []
    one = instrument()
    one.layout.free_mb = lambda: looks.append(1) or 10_000
    pulse = Pulse(one)
    for _ in range(5):
        await pulse._space()
    assert len(looks) == 1


async def test_it_beats_until_it_is_stopped(monkeypatch):
    monkeypatch.setattr(module, "PERIOD_S", 0.01)
    one = instrument()
    pulse = Pulse(one)
    await pulse.start()
    async with asyncio.timeout(5):
        while ("beat", "loop") not in one.watchdog.calls[5:]:
            await asyncio.sleep(0.01)
    await pulse.stop()
    await pulse.stop()
    kinds = [name for name, _ in one.watchdog.calls]
    assert kinds[:3] == ["register"] * 3 and kinds[-3:] == ["unregister"] * 3
    assert ("persist",) in one.faults.calls


def test_parts_remedies_and_reconnects_are_counted():
    one = instrument(status_parts=lambda: [PartStatus("camera", "failed"), PartStatus("cell", "ready")])
    pulse = Pulse(one)
    for opens, resets in ((1, 0), (3, 2), (3, 2)):
        one.engine.camera_opens = one.cell.opens = opens
        one.engine.book.heartbeat(beat(1, 1, remedies={"reset": resets, "clear": 0}))
        one.stats.failed_commits, one.stats.lag_s = opens, 0.5
        pulse._count()
    text = one.metrics.text().decode()
    for line in (
        'instrument_part_severity{part="camera"} 2.0', 'instrument_part_severity{part="cell"} 0.0',
        'instrument_reconnects_total{device="camera"} 2.0', 'instrument_reconnects_total{device="potentiostat"} 2.0',
        'instrument_camera_remedies_total{step="reset"} 2.0', "instrument_failed_commits_total 3.0",
        "instrument_store_lag_seconds 0.5", 'instrument_queue_depth_items{queue="link"} 1.0',
    ):  # fmt: skip
        assert line in text, line


async def test_a_disk_that_gets_low_is_told_once_with_its_forecast(monkeypatch):
    one = instrument()
    pulse = Pulse(one)
    clock = iter(range(0, 100_000, 30))
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    one.runs.current = lambda: SimpleNamespace(run_id="r1")
    for free_mb in range(4000, 3000, -20):  # 2400 MB an hour
        one.layout.free_mb = lambda free_mb=free_mb: free_mb
        await pulse._space()
    ((sentence, free_mb),) = one.warnings
    assert 3000 < free_mb < 4000 and "h at the rate of the last minutes" in sentence
    assert pulse.disk.as_dict()["falls_mb_per_h"] == pytest.approx(2400, rel=1e-3)
    assert b"instrument_store_full_in_seconds 42" in one.metrics.text()  # 2820 MB at 2400 MB an hour
