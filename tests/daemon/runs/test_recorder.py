from dataclasses import replace

import numpy as np
import pytest

from daemon.cell.samples import CellRow
from daemon.engine.measures import Clip, MeasureBatch
from daemon.events import Event, EventKind
from daemon.photometry.science import ScienceSettings
from daemon.runs.recorder import Recorder, particle_rows
from daemon.store.reader import RunReader
from daemon.tables import PARTICLES
from tests.daemon.runs.rig import masks
from tests.daemon.store.helpers import WAIT_S, running

PARTICLE_COUNT = 2
TRUTH = np.array([0.1, -0.05])


def batch(first, count, known=True):
    """Frames at 100 a second: flux 1000, from frame 50 on changed by `TRUTH`."""
    frame = np.arange(first, first + count)
    flux = np.full((count, PARTICLE_COUNT), 1000.0, np.float32)
    flux[frame >= 50] *= 1 + TRUTH
    layers = np.repeat(flux[:, :, None] / 4, 4, axis=2)
    zero = np.zeros(count, np.float32)
    return MeasureBatch(
        frame, frame + 5, frame / 100, 1e5 + frame / 100, zero, zero, zero + 0.01, zero + 1, zero + 1,
        np.zeros(count, np.uint32), flux, flux * 1e-3, layers, layers * 2e-3, flux * 0, flux * 0,
        np.zeros(flux.shape, np.uint16), baseline_flux_e=np.full(PARTICLE_COUNT, 1000.0) if known else None,
        baseline_layer_flux_e=np.full((PARTICLE_COUNT, 4), 250.0) if known else None, camera_t0_s=0.0,
    )  # fmt: skip


@pytest.fixture
def recorded(tmp_path):
    """Record what `work(recorder)` does; gives an open reader and what was published."""
    readers = []

    def record(work):
        published, path = [], tmp_path / "r.db"
        with running(None) as writer:
            writer.create_run(path, {"run_id": "r"}).result(WAIT_S)
            recorder = Recorder("r", masks(), ScienceSettings(), writer, published.extend, chunk_wait_s=5.0)
            recorder.open(np.full((20, 40), 7.5, np.float32))
            work(recorder)
            writer.close_run().result(WAIT_S)
        readers.append(RunReader(path).open())
        return readers[-1], published, recorder

    yield record
    for reader in readers:
        reader.close()


def test_measures_come_back_as_contrasts_in_order(recorded):
    def work(recorder):
        for first in range(0, 100, 20):
            recorder.add(batch(first, 20))
        recorder.finish()

    reader, _, recorder = recorded(work)
    frames = reader.frames()
    np.testing.assert_array_equal(frames["frame"], range(100))
    np.testing.assert_allclose(frames["t_s"], np.arange(100) / 100, atol=1e-6)
    contrast = reader.particle_columns(["contrast"])[1]["contrast"]
    np.testing.assert_allclose(contrast[:50], 0, atol=2e-4)
    np.testing.assert_allclose(contrast[50:], np.tile(TRUTH, (50, 1)), atol=2e-4)
    assert (recorder.frames, recorder.last_frame, recorder.last_t_s) == (100, 99, pytest.approx(0.99))
    np.testing.assert_array_equal(recorder.baseline[0], [1000.0, 1000.0])


def test_frames_before_the_baseline_is_known_are_stored_too(recorded):
    def work(recorder):
        recorder.add(batch(0, 30, known=False))
        assert recorder.baseline is None
        recorder.add(batch(30, 10))
        recorder.finish()

    reader, _, _ = recorded(work)
    np.testing.assert_array_equal(reader.frames()["frame"], range(40))
    assert np.isfinite(reader.particle_columns(["contrast"])[1]["contrast"]).all()


def test_what_a_run_starts_from_is_stored(recorded):
    reader, _, _ = recorded(lambda recorder: None)
    np.testing.assert_array_equal(reader.labels(), masks().labels)
    np.testing.assert_allclose(reader.reference(), 7.5, rtol=1e-3)
    rows = reader.particles()
    assert [row["particle_id"] for row in rows] == [11, 12]
    assert [row["x_px"] for row in rows] == [9.5, 29.5]
    assert rows[0]["area_px"] == 100 and rows[0]["solidity"] is None and rows[0]["state"] == "active"


def test_cell_rows_and_events_are_stored_and_published_with_numbers(recorded):
    def work(recorder):
        recorder.add_cell([CellRow(0.5, 1.0, 3.7, 0.5, 0, 1, "charge", 0.1)])
        recorder.record([Event(EventKind.CAMERA_LOST, 0.1, 0.2), Event(EventKind.CAMERA_BACK, 0.3, 0.3)])

    reader, published, _ = recorded(work)
    (row,) = reader.echem()
    assert (row["t_s"], row["voltage_v"], row["step_kind"]) == (0.5, 3.7, "charge")
    assert [event.kind for event in reader.events()] == ["camera_lost", "camera_back"]
    assert [event.event_id for event in published] == [1, 2]
    assert all(event.run_id == "r" for event in published)


def test_events_that_cannot_be_stored_are_not_published(tmp_path):
    published = []
    with running(None) as writer:  # no run is open: the write fails
        recorder = Recorder("r", masks(), ScienceSettings(), writer, published.extend)
        recorder.record([Event(EventKind.CAMERA_LOST, 0.1, 0.2)])
    assert published == []


def test_particle_rows_have_only_columns_of_the_table():
    rows = particle_rows(masks(3))
    assert len(rows) == 3
    for row in rows:
        assert row.keys() <= set(PARTICLES)
        assert row["parent_id"] is None and isinstance(row["particle_id"], int)


def test_clips_are_stored_under_their_particles_within_the_budget(recorded, monkeypatch):
    monkeypatch.setattr("daemon.runs.recorder.CLIPS_OF_ONE", 2)
    monkeypatch.setattr("daemon.runs.recorder.MAX_CLIPS", 3)
    looks = np.arange(2 * 4 * 5, dtype=np.uint16).reshape(2, 4, 5)

    def clip(index, t_s):
        return Clip(index, int(100 * t_s), 3, 4, np.array([t_s, t_s + 0.5]), looks + index)

    def work(recorder):
        first = replace(batch(0, 20), clips=[clip(0, 0.0), clip(0, 1.0), clip(0, 2.0)])
        recorder.add(first)
        recorder.add(replace(batch(20, 20), clips=[clip(1, 3.0), clip(1, 4.0)]))

    reader, _, recorder = recorded(work)
    ids = recorder.masks.particle_id.tolist()
    assert [row["particle_id"] for row in reader.clips()] == [ids[0], ids[0], ids[1]]
    (row,) = reader.clips(ids[1])
    assert (row["t0_s"], row["t1_s"], row["looks"], row["height"], row["width"]) == (3.0, 3.5, 2, 4, 5)
    stored = reader.clip(row["clip_id"])
    np.testing.assert_array_equal(stored.pixels, looks + 1)
    np.testing.assert_array_equal(stored.t_s, [3.0, 3.5])
    assert reader.clip(99) is None


def test_pieces_of_cracked_particles_become_rows_with_a_parent(recorded, monkeypatch):
    row = {"particle_id": 31, "parent_id": 12, "y_px": 4.0, "x_px": 5.0, "area_px": 60.0, "state": "dead"}

    def work(recorder):
        recorder.add(batch(0, 20))
        monkeypatch.setattr(recorder.science._events, "fragments", lambda: [row])
        recorder.finish()

    reader, _, _ = recorded(work)
    found = reader.particles()
    assert len(found) == PARTICLE_COUNT + 1
    assert {name: found[-1][name] for name in row} == row
    assert found[-1]["particle_index"] == PARTICLE_COUNT, "behind all that have traces"
