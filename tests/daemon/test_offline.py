"""Recordings from file to results: a simulated one against its own truth, a real one from the command line."""

import shutil
import time
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from daemon import offline as module
from daemon.ctl.app import cli
from daemon.engine.measures import FrameFlag
from daemon.engine.transfer import Transfer
from daemon.errors import (
    InstrumentError,
    RecordingError,
    RecordingReason,
    RunError,
    RunReason,
    StoreError,
    StoreReason,
)
from daemon.events import EventKind
from daemon.offline import analyse, cell_rows
from daemon.photometry import science
from daemon.store import rows
from daemon.store.export import export_run
from daemon.store.loop import RETRY_PAUSES_S
from daemon.store.queue import OpQueue
from daemon.store.reader import RunReader
from daemon.store.session import OpenFile
from daemon.tables import EXPORT_TABLES
from hw.twin.instrument import TwinInstrument
from hw.twin.recording import write_recording
from hw.twin.settings import TwinOptions
from tests.hw.recording.builders import cut, movie, write_h5

FRAMES, INTERVAL_S = 330, 15.0
FOOTAGE = Path(__file__).parents[1] / "data" / "bulk_water.tif"


@pytest.fixture(scope="module")
def analysed(tmp_path_factory):
    """30 particles through a charge and a discharge with rests between: what was found beside what was true."""
    folder = tmp_path_factory.mktemp("offline")
    options = TwinOptions(
        seed=6, particles=30, height_px=300, width_px=400, speed=INTERVAL_S, frame_rate_hz=1.0, cracks_per_h=0,
        drift_walk_nm_per_h=0, led_warmup=0,
    )  # fmt: skip
    write_recording(folder / "scene.h5", TwinInstrument(options, 2.0, 300.0), FRAMES)
    told = []
    summary = analyse(folder / "scene.h5", folder / "run.db", progress=lambda *done: told.append(done))
    with h5py.File(folder / "scene.h5") as file, RunReader(folder / "run.db") as reader:
        truth = SimpleNamespace(
            labels=file["truth/labels"][:], flux_e=file["truth/flux_e"][:], soc=file["truth/soc"][:],
            dead=file["truth/particles/dead"][:], drift_y_px=file["truth/drift_y_px"][:],
        )  # fmt: skip
        particles = reader.particles()
        frames, columns = reader.particle_columns(["contrast", "contrast_sigma"])
        return SimpleNamespace(
            folder=folder, summary=summary, told=told, truth=truth, particles=particles, frames=frames, **columns,
            true_index=np.array([truth.labels[round(p["y_px"]), round(p["x_px"])] for p in particles]) - 1,
            labels=reader.labels(), cycles=reader.cycles(), echem=reader.echem(), metadata=reader.metadata(),
        )  # fmt: skip


def test_every_particle_is_found_once(analysed):
    assert sorted(analysed.true_index) == list(range(30))
    assert analysed.summary.particles == 30
    truth = analysed.truth.labels > 0
    found = analysed.labels > 0
    assert (truth & found).sum() / (truth | found).sum() > 0.8


def test_every_frame_is_measured_and_told(analysed):
    assert (analysed.summary.frames, analysed.summary.dropped, analysed.summary.faults) == (FRAMES, {}, [])
    assert 0 < analysed.summary.seconds < 60
    np.testing.assert_array_equal(analysed.frames["frame"], range(FRAMES))
    np.testing.assert_allclose(analysed.frames["t_s"], INTERVAL_S * np.arange(FRAMES), atol=1e-2)
    assert analysed.told[-1] == (FRAMES, FRAMES)
    assert [done for done, _ in analysed.told] == sorted(done for done, _ in analysed.told)


def test_drift_is_the_true_one(analysed):
    true = analysed.truth.drift_y_px
    found = analysed.frames["drift_y_px"]
    assert np.std((found - found.mean()) - (true - true.mean())) < 0.02


def test_contrasts_are_the_true_ones_within_a_few_sigma(analysed):
    flux = analysed.truth.flux_e[:, analysed.true_index]
    true = flux / flux[:5].mean(axis=0) - 1
    error = analysed.contrast - true
    assert np.nanmax(np.abs(true)) > 0.2  # there is something to see
    assert np.abs(error).max() < 0.02
    z = np.sqrt(np.mean((error / analysed.contrast_sigma) ** 2, axis=0))
    assert np.median(z) < 3


def test_soc_is_known_after_the_rests_and_near_the_truth(analysed, tmp_path):
    export_run(analysed.folder / "run.db", tmp_path, format="parquet", tables=["traces"])
    traces = pq.read_table(tmp_path / "traces.parquet").to_pydict()
    by_particle = np.array(traces["particle_id"])
    soc, t_s = np.array(traces["soc"], float), np.array(traces["t_s"])
    known, errors = 0, []
    for p, index in zip(analysed.particles, analysed.true_index, strict=True):
        mine = by_particle == p["particle_id"]
        if p["calibration"] in ("none", "folded"):
            assert np.isnan(soc[mine]).all()
            continue
        known += 1
        order = np.argsort(t_s[mine])
        values = soc[mine][order]
        assert np.isfinite(values).mean() > 0.95
        errors.append(np.nanmedian(np.abs(values - analysed.truth.soc[:, index])))
    assert known >= 24  # the dead have none, a folded one may not
    assert np.median(errors) < 0.1


def test_the_dead_are_told_from_the_living(analysed):
    states = np.array([p["state"] for p in analysed.particles])
    dead = analysed.truth.dead[analysed.true_index].astype(bool)
    assert (states[dead] == "dead").all() and not (states[~dead] == "dead").any()


def test_halves_and_the_cells_record_are_there(analysed):
    halves = {(row["cycle"], row["half"]) for row in analysed.cycles}
    assert {(0, "charge"), (0, "discharge")} <= halves
    swings = [row["swing"] for row in analysed.cycles if row["cycle"] == 0 and row["half"] == "charge"]
    assert np.median(np.abs(swings)) > 0.1
    kinds = [row["step_kind"] for row in analysed.echem]
    assert set(kinds) == {"rest", "charge", "discharge"} and kinds[0] == "rest"
    assert analysed.metadata["capacity_mah"] == 0.5 and analysed.metadata["run_id"] == "run"


@pytest.mark.parametrize("file_format", ["parquet", "csv"])
def test_tables_are_exported_with_exactly_their_columns(analysed, tmp_path, file_format):
    written = export_run(analysed.folder / "run.db", tmp_path, format=file_format)
    assert written.keys() == EXPORT_TABLES.keys()
    for name, path in written.items():
        if file_format == "parquet":
            columns = pq.read_schema(path).names
        else:
            columns = [name.strip('"') for name in path.read_text().splitlines()[0].split(",")]
        assert tuple(columns) == EXPORT_TABLES[name]


def test_one_file_is_the_whole_result(analysed):
    assert sorted(path.name for path in analysed.folder.iterdir()) == ["run.db", "scene.h5"]


def test_how_a_recording_is_read_changes_nothing(analysed, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BLOCK_FRAMES", 7)
    analyse(analysed.folder / "scene.h5", tmp_path / "again.db")
    with RunReader(tmp_path / "again.db") as reader:
        contrast = reader.particle_columns(["contrast"])[1]["contrast"]
        np.testing.assert_allclose(contrast, analysed.contrast, atol=5e-5)  # stored rounded, chunk by chunk
        assert reader.cycles() == analysed.cycles


# --- a real recording, as its owner would -------------------------------------------------------------------------


def ctl(*arguments):
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def test_footage_from_the_command_line_to_parquet(tmp_path):
    out = tmp_path / "RUN.db"
    done = ctl("analyse", FOOTAGE, "--out", out, "--set", "frame_interval_s=0.0416667")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.startswith(f"{out}: 60 frames, ")
    done = ctl("export", out, "--out", tmp_path / "tables", "--format", "parquet")
    assert done.exit_code == 0, done.stderr
    for name, columns in EXPORT_TABLES.items():
        assert tuple(pq.read_schema(tmp_path / "tables" / f"{name}.parquet").names) == columns
    frames = pq.read_table(tmp_path / "tables" / "frames.parquet").to_pydict()
    np.testing.assert_allclose(frames["t_s"], 0.0416667 * np.arange(60), atol=1e-4)
    particles = pq.read_table(tmp_path / "tables" / "particles.parquet").num_rows
    assert pq.read_table(tmp_path / "tables" / "traces.parquet").num_rows == 60 * particles > 0


# --- what can go wrong --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """40 frames of a still scene."""
    path = tmp_path_factory.mktemp("short") / "short.h5"
    options = TwinOptions(seed=2, particles=6, height_px=160, width_px=200, frame_rate_hz=20)
    write_recording(path, TwinInstrument(options), 40)
    return path


def only(folder, *names):
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)


def test_an_existing_file_is_never_touched(short, tmp_path):
    out = tmp_path / "run.db"
    out.write_bytes(b"precious")
    with pytest.raises(StoreError) as caught:
        analyse(short, out)
    assert caught.value.reason is StoreReason.EXISTS and "run.db" in caught.value.detail
    assert out.read_bytes() == b"precious"
    only(tmp_path, "run.db")


@pytest.mark.parametrize("fraction", [0.0, 0.02, 0.5, 0.98])
def test_a_truncated_recording_is_a_sentence_and_leaves_nothing(short, tmp_path, fraction):
    path = cut(Path(shutil.copy(short, tmp_path / "cut.h5")), fraction)
    done = ctl("analyse", path, "--out", tmp_path / "run.db")
    assert done.exit_code == 1
    assert "cut.h5" in done.stderr and "Traceback" not in done.stderr
    only(tmp_path, "cut.h5")


def test_a_truncated_tiff_is_told(tmp_path):
    path = cut(Path(shutil.copy(FOOTAGE, tmp_path / "cut.tif")), 0.5)
    done = ctl("analyse", path, "--out", tmp_path / "run.db", "--set", "frame_interval_s=0.04")
    assert "Traceback" not in done.stderr and "cut.tif" in done.stderr
    if done.exit_code == 0:  # what is there may be analysed, and what is missing is said
        assert "fault: " in done.stderr


def test_a_scene_without_particles_is_a_sentence_and_leaves_nothing(tmp_path):
    rng = np.random.default_rng(0)
    flat = rng.normal(800, 10, (12, 160, 200)).astype(np.uint16)
    write_h5(tmp_path / "flat.h5", flat, attrs={"gain_e_per_dn": 8.0, "read_noise_e": 7.0, "dark_dn": 64.0})
    done = ctl("analyse", tmp_path / "flat.h5", "--out", tmp_path / "run.db")
    assert done.exit_code == 1 and "focus" in done.stderr
    only(tmp_path, "flat.h5")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"masks.threshold_sigma": -1}, "threshold_sigma"),
        ({"masks.no_such": 1}, "no setting 'masks.no_such'"),
        ({"masks.min_area_px": 3}, "'masks.min_area_px' is 3: input should be greater"),
        ({"masks.min_area_px": 60000}, "'masks': min_area_px = 60000 must be below"),
        ({"reference_frames": 0}, "reference_frames"),
        ({"no_such_value": 1}, "no_such_value"),
        ({"pixel_size_nm": "wide"}, "pixel_size_nm"),
    ],
)
def test_a_wrong_override_is_named(short, tmp_path, overrides, words):
    with pytest.raises(RecordingError) as caught:
        analyse(short, tmp_path / "run.db", overrides=overrides)
    assert caught.value.reason is RecordingReason.BAD_VALUE and words in caught.value.detail
    assert "\n" not in caught.value.detail and "pydantic" not in caught.value.detail
    only(tmp_path)


@pytest.mark.parametrize("out", ["no/such/folder/run.db"])
def test_a_place_that_does_not_exist_is_an_error(short, tmp_path, out):
    with pytest.raises(InstrumentError) as caught:
        analyse(short, tmp_path / out)
    assert out in caught.value.detail
    only(tmp_path)


def test_a_fault_on_the_way_leaves_neither_file_nor_thread(short, tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("singular matrix")

    monkeypatch.setattr(science.Science, "add", fail)
    with pytest.raises(RuntimeError, match="singular"):
        analyse(short, tmp_path / "run.db")
    only(tmp_path)


def test_a_disk_that_is_full_for_a_while_fails_the_analysis(short, tmp_path, monkeypatch):
    execute, refusals = OpenFile.execute, []

    def full_for_a_while(file, steps):
        if any(getattr(op, "what", "") == "chunk" for op, _ in steps) and len(refusals) <= len(RETRY_PAUSES_S):
            refusals.append(steps)
            raise StoreError(StoreReason.DISK_FULL, "the disk is full")
        return execute(file, steps)

    monkeypatch.setattr(OpenFile, "execute", full_for_a_while)
    with pytest.raises(StoreError) as caught:
        analyse(short, tmp_path / "run.db")
    assert caught.value.reason is StoreReason.DISK_FULL and len(refusals) == 1 + len(RETRY_PAUSES_S)
    only(tmp_path)


def test_frames_that_a_slow_disk_has_no_room_for_fail_the_analysis(short, tmp_path, monkeypatch):
    def full(queue, op, wait_s):
        if op.batch is not None:
            op.future.set_running_or_notify_cancel()
            raise StoreError(StoreReason.OVERLOADED, "the store's queue is full")
        put(queue, op, wait_s)

    put = OpQueue.put
    monkeypatch.setattr(OpQueue, "put", full)
    with pytest.raises(StoreError) as caught:
        analyse(short, tmp_path / "run.db")
    assert caught.value.reason is StoreReason.OVERLOADED and "frames" in caught.value.detail
    only(tmp_path)


def test_results_that_the_store_cannot_take_fail_the_analysis(short, tmp_path, monkeypatch):
    def fail(*_):
        raise ValueError("no number")

    monkeypatch.setattr(rows, "insert_ensemble", fail)
    with pytest.raises(RunError) as caught:
        analyse(short, tmp_path / "run.db")
    assert caught.value.reason is RunReason.INTERNAL
    only(tmp_path)


def test_what_an_earlier_attempt_left_is_replaced(short, tmp_path):
    (tmp_path / "run.db.partial").write_bytes(b"half a file")
    assert analyse(short, tmp_path / "run.db").frames == 40
    only(tmp_path, "run.db")


def test_an_interrupted_analysis_leaves_nothing(short, tmp_path):
    def interrupt(done, total):
        raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        analyse(short, tmp_path / "run.db", progress=interrupt)
    assert time.monotonic() - began < 10
    only(tmp_path)


def test_a_recording_shorter_than_its_reference_and_baseline_is_measured(short, tmp_path):
    summary = analyse(short, tmp_path / "run.db", overrides={"reference_frames": 500, "baseline_s": 3600.0})
    assert summary.frames == 40
    with RunReader(tmp_path / "run.db") as reader:
        assert np.isfinite(reader.particle_columns(["contrast"])[1]["contrast"]).all()


def test_overrides_reach_the_result(short, tmp_path):
    analyse(short, tmp_path / "run.db", overrides={"pixel_size_nm": 50.0, "masks.threshold_sigma": 6.0})
    with RunReader(tmp_path / "run.db") as reader:
        metadata = reader.metadata()
    assert metadata["pixel_size_nm"] == 50.0 and metadata["recipe"]["masks"]["threshold_sigma"] == 6.0


# --- frames that are missing --------------------------------------------------------------------------------------


def without(path, target, lost, dropped_times=()):
    """A copy from which the frames `lost` are gone as from a recorder that never got them; some have no time."""
    with h5py.File(path) as source, h5py.File(target, "w") as file:
        kept = np.setdiff1d(np.arange(len(source["movie"])), lost)
        timing = source["camera_timing"][:, kept]
        timing[1, list(dropped_times)] = np.nan
        file.create_dataset("movie", data=source["movie"][kept, :, :], chunks=(1, *source["movie"].shape[1:]))
        file["camera_timing"], file["potentiostat_value"] = timing, source["potentiostat_value"][:]
        file.attrs.update(source.attrs)
    return target


def damaged(path, frame):
    """Overwrite a frame's chunk so that its check sum or its stream is wrong."""
    with h5py.File(path, "a") as file:
        data = file["movie"][:]
        del file["movie"]
        movie = file.create_dataset("movie", data=data, chunks=(1, *data.shape[1:]), fletcher32=True)
        place = movie.id.get_chunk_info(frame)
    with path.open("r+b") as raw:
        raw.seek(place.byte_offset + 100)
        raw.write(b"\x5a" * 64)
    return path


def drops_of(path):
    with RunReader(path) as reader:
        frames = reader.frames()
        rows = [(row["stage"], row["reason"], row["count"], round(row["t_s"], 3)) for row in reader.drops()]
        events = [(e.t_s, e.magnitude) for e in reader.events() if e.kind is EventKind.FRAMES_DROPPED]
    return rows, frames, events


def test_frames_that_the_camera_lost_are_counted_by_its_own_numbers(short, tmp_path):
    path = without(short, tmp_path / "r.h5", [10, 11, 12, 30])
    done = ctl("analyse", path, "--out", tmp_path / "run.db")
    assert done.exit_code == 0 and ", 4 frames lost by the camera\n" in done.stdout
    rows, frames, events = drops_of(tmp_path / "run.db")
    assert rows == [("camera", "lost", 3, 0.65), ("camera", "lost", 1, 1.55)]
    np.testing.assert_array_equal(
        frames["block_id"] - frames["block_id"][0], np.setdiff1d(np.arange(40), [10, 11, 12, 30])
    )
    assert (np.flatnonzero(frames["flags"] & FrameFlag.GAP_BEFORE) == [10, 27]).all()
    assert sum(magnitude for _, magnitude in events) == 4
    captured = int(np.ptp(frames["block_id"])) + 1
    assert captured == len(frames["frame"]) + sum(count for _, _, count, _ in rows) == 40


def test_what_the_camera_lost_is_told_from_what_cannot_be_used(short, tmp_path):
    path = damaged(without(short, tmp_path / "r.h5", [5, 6], dropped_times=[20, 21, 22]), 8)
    summary = analyse(path, tmp_path / "run.db")
    assert (summary.frames, summary.dropped) == (34, {"camera.lost": 2, "recording.unreadable": 4})
    rows, frames, _ = drops_of(tmp_path / "run.db")
    assert rows == [
        ("camera", "lost", 2, 0.35), ("recording", "unreadable", 1, 0.5), ("recording", "unreadable", 3, 1.25)
    ]  # fmt: skip
    assert int(np.ptp(frames["block_id"])) + 1 == 40


def test_a_recording_without_a_counter_knows_of_no_loss(short, tmp_path):
    path = without(short, tmp_path / "r.h5", [10, 11])
    with h5py.File(path, "a") as file:
        t_s = file["camera_timing"][1]
        del file["camera_timing"]
        file["camera_timing"] = t_s
    assert analyse(path, tmp_path / "run.db").dropped == {}
    assert drops_of(tmp_path / "run.db")[0] == []


def test_many_losses_are_a_row_a_second():
    lost = np.arange(10_000) % 10 == 9
    numbers = np.flatnonzero(~lost)
    source = SimpleNamespace(frame_index=np.arange(9000), block_id=numbers, t_s=numbers / 100)
    rows = module.losses(source, np.ones(9000, bool))
    assert len(rows) == 100 and sum(row[2] for row in rows) == 999  # nobody sees one lost after the last frame
    assert all(row[:2] == ("camera", "lost") for row in rows)
    assert module.losses(source, np.arange(9000) != 8999)[-1] == ("recording", "unreadable", 1, 99.98)


# --- the camera's noise -------------------------------------------------------------------------------------------


def without_noise(path, tmp_path, **attributes):
    """A copy whose recorder knew nothing of its camera but `attributes`."""
    copy = Path(shutil.copy(path, tmp_path / path.name))
    with h5py.File(copy, "a") as file:
        for name in ("gain_e_per_dn", "read_noise_e", "dark_dn"):
            del file.attrs[name]
        file.attrs.update(attributes)
    return copy


def test_noise_that_a_recording_does_not_carry_is_estimated_told_and_stored_as_such(short, tmp_path):
    done = ctl("analyse", without_noise(short, tmp_path), "--out", tmp_path / "run.db")
    assert done.exit_code == 0, done.stderr
    gain, read_noise, dark = done.stdout.splitlines()[1].split("; ")
    assert gain.startswith("gain ") and "e/DN (estimated, +-" in gain
    assert read_noise == "read noise 7 e (assumed, +-43 %)" and dark.startswith("dark level ")
    with RunReader(tmp_path / "run.db") as reader:
        metadata = reader.metadata()
    noise = metadata["noise_model"]
    assert noise["gain_e_per_dn"] == pytest.approx(8.0, rel=0.05) and noise["gain_sigma_e_per_dn"] < 0.4
    assert noise["estimated"] and noise["gain_origin"] == noise["dark_origin"] == "estimated"
    assert [gain, read_noise, dark] == metadata["notes"][-3:]


def test_noise_that_is_given_is_told_as_given(short, tmp_path):
    done = ctl("analyse", short, "--out", tmp_path / "run.db")
    assert done.stdout.splitlines()[1] == "gain 8 e/DN (given); read noise 7 e (given); dark level 64 DN (given)"
    with RunReader(tmp_path / "run.db") as reader:
        assert not [note for note in reader.metadata()["notes"] if "gain" in note]


def test_frames_of_the_whole_recording_are_sampled(analysed, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MIN_SAMPLED", 64)
    monkeypatch.setattr(module, "SAMPLED_PIXELS", 1)
    seen = []

    def prepare(reference, settings):
        seen.append(reference)
        raise RuntimeError("seen enough")

    monkeypatch.setattr(module, "prepare", prepare)
    for path in (without_noise(analysed.folder / "scene.h5", tmp_path), analysed.folder / "scene.h5"):
        with pytest.raises(RuntimeError, match="enough"):
            analyse(path, tmp_path / "run.db")
    sampled, not_needed = (reference.transfer for reference in seen)
    assert (sampled.frames, sampled.pairs, sampled.stretches) == (64, 60, 4)
    assert sampled.duration_s == pytest.approx(INTERVAL_S * (FRAMES - 1)) and sampled.common_pixels < 300 * 400
    assert not_needed.frames == seen[1].frames == 50


@given(frames=st.integers(1, 5000), most=st.integers(1, 3000))
def test_stretches_lie_within_the_recording_and_apart(frames, most):
    found = module.stretches(frames, most)
    assert all(0 <= start < stop <= frames for start, stop in found)
    assert all(stop <= start for (_, stop), (start, _) in pairwise(found)) or 2 * most > frames
    assert sum(stop - start for start, stop in found) <= max(most, module.STRETCH_FRAMES)


def test_frames_that_cannot_be_read_are_left_out_of_the_noise(monkeypatch):
    class Source:
        info = SimpleNamespace(height_px=20, width_px=30)
        frames, t_s = 400, np.arange(400.0)

        def read(self, start, stop):
            if start < 200:
                raise RecordingError(RecordingReason.TRUNCATED, "gone", start)
            return np.full((stop - start, 20, 30), 7, np.uint16)

    reference = Transfer(np.ones((20, 30)), np.ones((20, 30)), 10, 9)
    monkeypatch.setattr(module, "MAX_SAMPLED", 64)
    sampled = module.sampled_transfer(Source(), reference, 12)
    assert (sampled.frames, sampled.stretches) == (32, 2)
    monkeypatch.setattr(Source, "t_s", np.arange(10.0))
    monkeypatch.setattr(Source, "frames", 10)
    assert module.sampled_transfer(Source(), reference, 12) is reference


# --- the cell's record --------------------------------------------------------------------------------------------


def record(current_ma, charge_mah=None):
    current = np.asarray(current_ma, float)
    t_s = 10.0 * np.arange(len(current))
    cell = SimpleNamespace(t_s=t_s, voltage_v=3.5 + 0 * t_s, current_ma=current, charge_mah=charge_mah)
    return SimpleNamespace(cell=cell)


def test_steps_and_cycles_are_cut_where_the_current_turns():
    rows = cell_rows(record([0, 1, 1, 0, -1, -1, 0, 1, -1, 1]))
    assert [row.step_kind for row in rows] == [
        "rest", "charge", "charge", "rest", "discharge", "discharge", "rest", "charge", "discharge", "charge",
    ]  # fmt: skip
    assert [row.step for row in rows] == [0, 1, 1, 2, 3, 3, 4, 5, 6, 7]
    assert [row.cycle for row in rows] == [0, 0, 0, 0, 0, 0, 0, 1, 1, 2]


def test_a_cell_that_is_discharged_first_counts_cycles_by_its_discharges():
    assert [row.cycle for row in cell_rows(record([-1, -1, 1, 1, -1]))] == [0, 0, 0, 0, 1]


def test_small_currents_are_rest():
    assert {row.step_kind for row in cell_rows(record([5.0, 0.04, -0.04, 0.0]))[1:]} == {"rest"}


def test_charge_is_integrated_when_the_record_has_none():
    rows = cell_rows(record([3.6, 3.6, 3.6, -3.6]))
    np.testing.assert_allclose([row.charge_mah for row in rows], [0.0, 0.01, 0.02, 0.02])
    given = cell_rows(record([1, 1], charge_mah=np.array([5.0, 6.0])))
    assert [row.charge_mah for row in given] == [5.0, 6.0]


def test_no_record_is_no_rows():
    assert cell_rows(SimpleNamespace(cell=None)) == []
    assert {row.step_kind for row in cell_rows(record([0, 0]))} == {"rest"}


def test_reading_ahead_is_bounded_and_ends_with_its_reader(tmp_path):
    from hw.recording import open_recording

    path = write_h5(tmp_path / "r.h5", movie(400))
    with open_recording(path) as source:
        blocks = module._read_ahead(source)
        start, frames = next(blocks)
        assert start == 0 and frames.dtype == np.uint16
        blocks.close()  # the reader's thread ends with it: the harness looks
