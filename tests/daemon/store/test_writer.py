from __future__ import annotations

import asyncio
import sqlite3
import time

import numpy as np
import pytest

from daemon.errors import RunError, RunReason, StoreError, StoreReason
from daemon.mask_edits import MaskVersion
from daemon.store import loop
from daemon.store.reader import CatalogueReader, RunReader
from daemon.store.writer import StoreWriter
from tests.daemon.store.helpers import (
    PARTICLES,
    WAIT_S,
    cell_row,
    event,
    frames,
    open_run,
    particle_rows,
    running,
    summary,
)


def test_everything_comes_back(tmp_path):
    labels = np.arange(12, dtype=np.int32).reshape(3, 4)
    reference = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    cycle = {"particle_id": 11, "cycle": 0, "half": "charge", "swing": 0.1, "soc_start": float("nan")}
    calibration = {"particle_id": 12, "kind": "monotone", "contrast_knots": [0.0, np.float32(0.5)],
                   "soc_knots": np.array([0.0, 1.0]), "soc_sigma": 0.01, "method": "rests"}  # fmt: skip
    with open_run(tmp_path, commit_interval_s=0.05) as (writer, path):
        waits = [
            writer.set_metadata({"pixel_size_nm": np.float64(65.0), "unknown": float("nan")}),
            writer.put_particles(particle_rows()),
            writer.update_particles([{"particle_id": 11, "state": "dead"}]),
            writer.put_masks(MaskVersion(1, 0, ""), labels, reference),
            writer.put_cycles([cycle, {**cycle, "swing": 0.2}]),
            writer.put_ensemble([{"t_s": 1.0, "soc_mean": 0.5, "active_fraction": 1.0}]),
            writer.put_cell_samples([cell_row(0.5), cell_row(1.5)]),
            writer.put_calibrations([{**calibration, "kind": "none"}, calibration]),
            writer.put_drop("camera", "ring_full", 3, 0.25),
            writer.put_fault("camera.stalled", "no frame for 2 s", 0.75),
            writer.put_chunk(*frames(0, 10)),
        ]
        for wait in waits:
            wait.result(WAIT_S)
        with RunReader(path) as run:
            told = run.metadata()
            assert (told["run_id"], told["pixel_size_nm"], told["unknown"]) == ("r1", 65.0, None)
            assert told["recipe"] == {"name": "a name", "masks": {"min_area_px": 30}}
            rows = run.particles()
            assert [row["particle_index"] for row in rows] == list(range(PARTICLES))
            assert rows[0]["state"] == "dead"
            assert rows[0]["equivalent_diameter_um"] is None
            assert rows[0]["layer_sigma_ratio"] == [2.0, 2.1, 2.2, 2.3]
            assert np.array_equal(run.labels(), labels)
            assert np.array_equal(run.reference(1), reference)
            assert [(row["swing"], row["soc_start"]) for row in run.cycles(11)] == [(0.2, None)]
            assert run.ensemble(0, 2)[0]["soc_mean"] == 0.5
            assert [row["t_s"] for row in run.echem(1.0)] == [1.5]
            assert run.calibrations() == [{**calibration, "contrast_knots": [0.0, 0.5], "soc_knots": [0.0, 1.0],
                                           "layer_sigma_ratio": None}]  # fmt: skip
            assert run.drops() == [{"stage": "camera", "reason": "ring_full", "count": 3, "t_s": 0.25}]
            assert run.faults()[0]["code"] == "camera.stalled"
            assert run.frames()["frame"].tolist() == list(range(10))
    with CatalogueReader(tmp_path / "instrument.db") as catalogue:
        assert catalogue.run("r1") == summary("r1", path)
        assert catalogue.run("r2") is None
        assert catalogue.faults()[0]["run_id"] == "r1"


def test_events_are_numbered_over_runs_and_restarts(tmp_path):
    with open_run(tmp_path) as (writer, path):
        first = writer.put_events([event(1.0), event(2.0, None)]).result(WAIT_S)
        writer.close_run().result(WAIT_S)
        outside = writer.put_events([event(0.0, None)]).result(WAIT_S)
    assert [(e.seq, e.event_id, e.run_id) for e in first + outside] == [(1, 1, "r1"), (2, 2, "r1"), (3, 1, "")]
    with running(tmp_path / "instrument.db") as writer:
        writer.create_run(tmp_path / "r2.db", {}, summary("r2", tmp_path / "r2.db")).result(WAIT_S)
        later = writer.put_events([event(5.0), event(6.0, run_id="r1")]).result(WAIT_S)
    assert [(e.seq, e.event_id, e.run_id) for e in later] == [(4, 1, "r2"), (5, 3, "r1")]
    with CatalogueReader(tmp_path / "instrument.db") as catalogue:
        assert catalogue.last_seq() == 5
        assert [e.seq for e in catalogue.events(after_seq=2, limit=2)] == [3, 4]
        assert np.isnan(catalogue.events()[0].score)
    with RunReader(path) as run:
        assert [(e.seq, e.event_id, e.particle_id, e.run_id) for e in run.events()] == [
            (1, 1, 11, "r1"),
            (2, 2, None, "r1"),
        ]
        assert [e.event_id for e in run.events(particle_id=11, kind="step")] == [1]
        assert run.events(kind="crack") == []


def test_without_a_catalogue_events_are_numbered_by_the_run(tmp_path):
    with running(None) as writer:
        writer.create_run(tmp_path / "out.db", {"recording": "movie.h5"}).result(WAIT_S)
        numbered = writer.put_events([event(1.0)]).result(WAIT_S) + writer.put_events([event(2.0)]).result(WAIT_S)
        assert [(e.seq, e.event_id, e.run_id) for e in numbered] == [(1, 1, "out"), (2, 2, "out")]
        writer.update_run("out", state="done").result(WAIT_S)
    with RunReader(tmp_path / "out.db") as run:
        assert run.metadata()["state"] == "done"
        assert len(run.events()) == 2


def test_events_do_not_wait_for_the_interval_but_frames_do(tmp_path):
    with open_run(tmp_path, commit_interval_s=30.0) as (writer, path):
        dense = [writer.put_chunk(*frames(5 * i, 5)) for i in range(4)]
        began_s = time.monotonic()
        for i in range(5):
            writer.put_events([event(float(i))]).result(WAIT_S)
        assert time.monotonic() - began_s < 5.0
        assert not any(each.done() for each in dense)
        writer.close_run().result(WAIT_S)
        assert all(each.done() for each in dense)
    with RunReader(path) as run:
        assert [len(chunk.frame_columns["t_s"]) for chunk in run.iter_chunks()] == [20]


def test_a_commit_gathers_what_arrived_within_the_interval(tmp_path):
    with open_run(tmp_path, commit_interval_s=0.2) as (writer, _):
        before = writer.stats().commits
        waits = [writer.put_chunk(*frames(i, 1)) for i in range(30)]
        waits += [writer.put_ensemble([{"t_s": float(i)}]) for i in range(30)]
        for wait in waits:
            wait.result(WAIT_S)
        stats = writer.stats()
        assert 1 <= stats.commits - before <= 3
        assert (stats.stored_frames, stats.queue_ops, stats.queue_bytes, stats.lag_s) == (30, 0, 0, 0.0)


def test_a_state_change_is_seen_in_catalogue_and_file(tmp_path):
    with open_run(tmp_path) as (writer, path):
        writer.update_run("r1", state="stopping", frames=np.int64(12), path=path).result(WAIT_S)
        with RunReader(path) as run, CatalogueReader(tmp_path / "instrument.db") as catalogue:
            assert (run.metadata()["state"], run.metadata()["frames"]) == ("stopping", 12)
            assert catalogue.runs() == [summary("r1", path, state="stopping", frames=12)]
        writer.close_run().result(WAIT_S)
        writer.update_run("r1", state="done").result(WAIT_S)
        with RunReader(path) as run:
            assert run.metadata()["state"] == "done"
        assert sorted(each.name for each in path.parent.iterdir()) == ["r1.db"]
        with pytest.raises(RunError) as caught:
            writer.update_run("r9", state="done").result(WAIT_S)
        assert caught.value.reason is RunReason.NOT_FOUND
        with pytest.raises(ValueError, match="colour"):
            writer.update_run("r1", colour="red")


def test_the_state_directory_can_move(tmp_path):
    with open_run(tmp_path):
        pass
    moved = tmp_path.with_name(tmp_path.name + "-moved")
    tmp_path.rename(moved)
    with CatalogueReader(moved / "instrument.db") as catalogue:
        assert catalogue.runs()[0].path == moved / "runs" / "r1.db"
        assert catalogue.runs()[0].path.exists()


def test_misuse_is_refused_and_the_writer_goes_on(tmp_path):
    with open_run(tmp_path, commit_interval_s=0.05) as (writer, path):
        with pytest.raises(RunError):
            writer.create_run(tmp_path / "other.db", {}).result(WAIT_S)
        with pytest.raises(ValueError, match="colour"):
            writer.put_particles([{"particle_id": 1, "colour": "red"}])
        good = writer.put_ensemble([{"t_s": 1.0}])
        with pytest.raises(sqlite3.Error):
            writer.put_ensemble([{"t_s": 2.0}, {"t_s": object()}]).result(WAIT_S)
        good.result(WAIT_S)
        writer.close_run().result(WAIT_S)
        writer.close_run().result(WAIT_S)
        for wait in (writer.put_ensemble([{"t_s": 3.0}]), writer.put_chunk(*frames(0, 5))):
            with pytest.raises(RunError):
                wait.result(WAIT_S)
        with pytest.raises(StoreError) as caught:
            writer.create_run(path, {}).result(WAIT_S)
        assert caught.value.reason is StoreReason.EXISTS
        assert writer.status().state == "ready"
    with RunReader(path) as run:
        assert [row["t_s"] for row in run.ensemble()] == [1.0]


def test_a_full_queue_drops_frames_counts_them_and_keeps_rows(tmp_path, monkeypatch):
    with open_run(tmp_path, commit_interval_s=0.1, queue_ops=20) as (writer, path):
        hold = sqlite3.connect(path, isolation_level=None)
        hold.execute("begin immediate")
        dense = [writer.put_chunk(*frames(i, 1)) for i in range(40)]
        writer.put_ensemble([{"t_s": 1.0}])
        hold.execute("rollback")
        hold.close()
        outcomes = [each.exception(WAIT_S) for each in dense]
        lost = [error for error in outcomes if error is not None]
        assert lost and all(error.reason is StoreReason.OVERLOADED for error in lost)
        assert writer.stats().lost_frames == len(lost)
        assert writer.stats().stored_frames == 40 - len(lost)
        writer.close_run().result(WAIT_S)
    with RunReader(path) as run:
        assert sum(row["count"] for row in run.drops()) == len(lost)
        assert {(row["stage"], row["reason"]) for row in run.drops()} == {("store", "store.overloaded")}
        assert len(run.frames()["frame"]) == 40 - len(lost)
        assert len(run.ensemble()) == 1


def test_offline_work_waits_for_room_instead(tmp_path):
    with open_run(tmp_path, commit_interval_s=0.05, queue_ops=8) as (writer, path):
        waits = [writer.put_chunk(*frames(10 * i, 10), wait_s=WAIT_S) for i in range(60)]
        for wait in waits:
            wait.result(WAIT_S)
        assert writer.stats().lost_frames == 0
    with RunReader(path) as run:
        assert run.frames()["frame"].tolist() == list(range(600))


async def test_from_an_event_loop_nothing_blocks(tmp_path):
    writer = StoreWriter(tmp_path / "instrument.db", commit_interval_s=0.05, queue_ops=4)
    await asyncio.to_thread(writer.start)
    path = tmp_path / "r1.db"
    await asyncio.wrap_future(writer.create_run(path, {}, summary("r1", path)))
    numbered = await asyncio.wrap_future(writer.put_events([event(1.0)]))
    assert numbered[0].seq == 1
    waiting = asyncio.ensure_future(asyncio.wrap_future(writer.put_events([event(2.0)])))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    began_s = time.monotonic()
    with pytest.raises(StoreError) as caught:
        for i in range(100):
            writer.put_ensemble([{"t_s": float(i)}])
    assert caught.value.reason is StoreReason.OVERLOADED
    assert time.monotonic() - began_s < 1.0
    await asyncio.to_thread(writer.stop)
    catalogue = CatalogueReader(tmp_path / "instrument.db")
    assert await asyncio.to_thread(catalogue.last_seq) == 2
    await asyncio.to_thread(catalogue.close)


def test_stopping_writes_everything_twice_is_fine_and_later_work_is_refused(tmp_path):
    with open_run(tmp_path, commit_interval_s=30.0) as (writer, path):
        wait = writer.put_chunk(*frames(0, 5))
        assert writer.stats().lag_s >= 0.0
    assert wait.result(0) > 0
    writer.stop()
    assert writer.status().state == "stopped"
    with pytest.raises(StoreError) as caught:
        writer.put_events([event(1.0)])
    assert caught.value.reason is StoreReason.STOPPED
    assert sorted(each.name for each in path.parent.iterdir()) == ["r1.db"]


def test_stopping_a_writer_that_never_started():
    StoreWriter(None).stop()


def test_instrument_calibrations_and_audit(tmp_path):
    dark = np.random.default_rng(0).normal(100, 2, (6, 8))
    with running(tmp_path / "instrument.db", commit_interval_s=0.01) as writer:
        writer.put_instrument_calibration("dark", np.zeros((6, 8)), {"mean_dn": 0.0}).result(WAIT_S)
        writer.put_instrument_calibration("dark", dark, {"mean_dn": np.float32(100.5)}).result(WAIT_S)
        writer.audit("operator", "cell.off", "by hand").result(WAIT_S)
    with CatalogueReader(tmp_path / "instrument.db") as catalogue:
        array, told = catalogue.instrument_calibration("dark")
        assert np.array_equal(array, dark)
        assert told["mean_dn"] == 100.5 and told["made_utc"].endswith("+00:00")
        assert catalogue.instrument_calibration("flat") is None
        assert catalogue.audit()[0]["actor"] == "operator"


def test_the_log_is_moved_to_the_main_file_before_it_grows(tmp_path, monkeypatch):
    monkeypatch.setattr("daemon.store.session.CHECKPOINT_WAL_BYTES", 200_000)
    with open_run(tmp_path, commit_interval_s=0.01) as (writer, _):
        for i in range(30):
            writer.put_chunk(*frames(100 * i, 100, particles=40)).result(WAIT_S)
        assert writer.stats().wal_bytes < 500_000
        assert writer.stats().chunk_bytes > 600_000


def test_a_later_mask_version_may_add_particles(tmp_path):
    with open_run(tmp_path, commit_interval_s=0.05) as (writer, path):
        writer.put_particles(particle_rows(3))
        writer.put_chunk(*frames(0, 5, particles=3))
        writer.put_particles([{"particle_id": 99}])
        writer.put_particles([{"particle_id": 12, "state": "lost"}])
        writer.put_chunk(*frames(5, 5, particles=4)).result(WAIT_S)
        with RunReader(path) as run:
            assert {row["particle_id"]: row["particle_index"] for row in run.particles()} == {
                11: 0,
                12: 1,
                13: 2,
                99: 3,
            }
            _, values = run.particle_columns(["contrast_sigma", "flags"])
            assert values["flags"].shape == (10, 4)
            assert np.isnan(values["contrast_sigma"][:5, 3]).all()
            assert not np.isnan(values["contrast_sigma"][5:, 3]).any()


def test_what_cannot_be_encoded_is_counted_and_the_writer_goes_on(tmp_path, monkeypatch):
    def broken(batches):
        raise MemoryError("no room for the chunk")

    with open_run(tmp_path, commit_interval_s=0.05) as (writer, path):
        with monkeypatch.context() as patch:
            patch.setattr(loop, "encode_chunk", broken)
            with pytest.raises(MemoryError):
                writer.put_chunk(*frames(0, 5)).result(WAIT_S)
        writer.put_chunk(*frames(5, 5)).result(WAIT_S)
        with RunReader(path) as run:
            assert run.frames()["frame"].tolist() == [5, 6, 7, 8, 9]
            assert run.drops() == [{"stage": "store", "reason": "store.refused", "count": 5, "t_s": 0.0}]
