from pathlib import Path

import h5py
import numpy as np
import pytest

from hw.camera.contract import PixelFormat
from hw.errors import RecordingError, RecordingReason
from hw.recording import hdf5_text, open_recording
from tests.hw.recording.builders import HEIGHT, WIDTH, cell_rows, cut, movie, write_h5


def refusal(path, **overrides):
    with pytest.raises(RecordingError) as caught:
        open_recording(path, overrides)
    return caught.value


@pytest.fixture
def path(tmp_path):
    return tmp_path / "r.h5"


def test_a_whole_recording(path):
    attrs = {
        "pixel_size_nm": 96.0, "exposure_us": 2000, "bit_depth": np.int32(12), "gain_e_per_dn": 7.5,
        "read_noise_e": 6.0, "dark_dn": 5, "electrode": "anode", "capacity_mah": 0.66, "potentiostat_offset_s": 0.05,
    }  # fmt: skip
    flat = np.full((HEIGHT, WIDTH), 2.0)
    flat[0, 0] = 3.0
    write_h5(path, attrs=attrs, dark=np.full((HEIGHT, WIDTH), 5.0), flat=flat, stage_position=np.ones((3, 20)))
    with open_recording(path) as recording:
        info = recording.info
        assert (info.height_px, info.width_px, info.pixel_format) == (HEIGHT, WIDTH, PixelFormat.MONO12)
        assert (info.pixel_size_nm, info.exposure_us, info.gain_e_per_dn) == (96.0, 2000.0, 7.5)
        assert (info.read_noise_e, info.dark_dn) == (6.0, 5.0)
        assert info.frame_rate_hz == pytest.approx(100)
        assert info.dark.dtype == np.float32 and (info.dark == 5).all()
        assert info.flat.mean() == pytest.approx(1) and info.flat[0, 0] == pytest.approx(1.5, rel=1e-2)
        assert (recording.frames, recording.bit_depth) == (20, 12)
        assert (recording.electrode, recording.capacity_mah) == ("anode", 0.66)
        np.testing.assert_allclose(recording.t_s, 0.01 * np.arange(20))
        np.testing.assert_allclose(recording.cell.t_s, 0.05 + cell_rows()[3])
        np.testing.assert_allclose(recording.cell.voltage_v, cell_rows()[0])
        np.testing.assert_allclose(recording.cell.charge_mah, cell_rows()[2])
        assert recording.extras["stage_position"].shape == (3, 20)
        assert recording.faults == [] and recording.notes == []
        np.testing.assert_array_equal(recording.read(0, 20), movie())


@pytest.mark.parametrize("dtype", ["u1", "u2", ">u2"])
@pytest.mark.parametrize("options", [{}, {"chunks": (1, 32, 48)}, {"chunks": (3, 8, 48)}, {"compression": "gzip"}])
def test_every_layout_reads_the_same(path, dtype, options):
    data = movie(23).astype(dtype)
    write_h5(path, data, options=options)
    with open_recording(path) as recording:
        assert recording.dtype == np.dtype(dtype).newbyteorder("=")
        np.testing.assert_array_equal(recording.read(0, 23), data)
        np.testing.assert_array_equal(recording.read(5, 12), data[5:12])
        out = np.empty((7, HEIGHT, WIDTH), recording.dtype)
        np.testing.assert_array_equal(recording.read(16, 99, out), data[16:])
        assert recording.read(23, 30).shape == (0, HEIGHT, WIDTH)
        blocks = list(recording.blocks(frames=4))
        assert [start for start, _ in blocks] == [0, 4, 8, 12, 16, 20]
        np.testing.assert_array_equal(np.concatenate([block for _, block in blocks]), data)


def test_blocks_are_whole_chunks(path):
    write_h5(path, options={"chunks": (7, 32, 48)})
    with open_recording(path) as recording:
        assert recording.block_frames % 7 == 0


def test_what_is_unknown_stays_unknown(path):
    write_h5(path, potentiostat_value=None)
    with open_recording(path) as recording:
        info = recording.info
        unknown = (
            info.gain_e_per_dn,
            info.read_noise_e,
            info.dark_dn,
            info.pixel_size_nm,
            info.exposure_us,
            info.dark,
            info.flat,
        )
        assert unknown == (None,) * 7
        assert recording.cell is None and recording.electrode is None and recording.capacity_mah is None
        assert recording.bit_depth == 16 and any("bit depth unknown" in note for note in recording.notes)


def test_saturated_pixels_tell_the_bit_depth(path):
    data = movie()
    data[0, 3, 3:6] = 4095
    write_h5(path, data)
    with open_recording(path) as recording:
        assert recording.info.pixel_format is PixelFormat.MONO12
        assert any("bit depth 12 estimated" in note for note in recording.notes)


def test_overrides_win_and_read_text(path):
    write_h5(path, attrs={"pixel_size_nm": 96.0, "bit_depth": 16})
    with open_recording(path, {"pixel_size_nm": "104.5", "bit_depth": 12, "electrode": "cathode"}) as recording:
        assert recording.info.pixel_size_nm == 104.5
        assert recording.bit_depth == 12 and recording.electrode == "cathode"


def test_wrong_overrides_are_named(path):
    write_h5(path)
    error = refusal(path, pixel_size=96)
    assert error.reason is RecordingReason.BAD_VALUE and "did you mean 'pixel_size_nm'" in error.detail
    assert "'gain_e_per_dn'" in refusal(path, gain_e_per_dn=-1).detail
    assert "'bit_depth'" in refusal(path, bit_depth="twelve").detail
    assert "'exposure_us'" in refusal(path, exposure_us=float("nan")).detail


def test_wrong_attributes_are_left_out_with_a_fault(path):
    attrs = {"gain_e_per_dn": -3.0, "electrode": "both", "capacity_mah": np.ones(3), "pixel_size_nm": float("nan")}
    write_h5(path, attrs=attrs)
    with open_recording(path) as recording:
        assert recording.info.gain_e_per_dn is None and recording.electrode is None and recording.capacity_mah is None
        assert recording.info.pixel_size_nm is None
        named = " ".join(fault.detail for fault in recording.faults)
        assert len(recording.faults) == 3 and all(
            f"'{n}'" in named for n in ("gain_e_per_dn", "electrode", "capacity_mah")
        )


def test_bytes_and_one_element_arrays_are_values(path):
    write_h5(path, attrs={"electrode": np.bytes_(b"cathode"), "pixel_size_nm": np.array([96.0], "f4")})
    with open_recording(path) as recording:
        assert recording.electrode == "cathode" and recording.info.pixel_size_nm == 96.0


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (np.zeros((20, 32, 48), "f4"), "float32"),
        (np.zeros((20, 32, 48), "c8"), "complex64"),
        (np.zeros((20, 32, 48), "i4"), "int32"),
        (np.zeros((20, 32), "u2"), "2 axes"),
        (np.zeros((20, 32, 48, 3), "u1"), "4 axes"),
        (np.zeros((0, 32, 48), "u2"), "no frames"),
        (np.zeros((20, 1, 48), "u2"), "1 x 48"),
    ],
)
def test_frames_that_are_not_images(path, data, words):
    write_h5(path, data, camera_timing=0.01 * np.arange(20))
    error = refusal(path)
    assert error.reason is RecordingReason.BAD_DATASET
    assert "'movie'" in error.detail and words in error.detail


def test_a_missing_movie_names_what_there_is(path):
    with h5py.File(path, "w") as file:
        file["film"] = movie()
    error = refusal(path)
    assert "no dataset 'movie'" in error.detail and "film" in error.detail


def test_a_movie_that_is_a_group(path):
    with h5py.File(path, "w") as file:
        file.create_group("movie")
    assert "no dataset 'movie'" in refusal(path).detail


def test_a_truncated_file(path):
    error = refusal(cut(write_h5(path), 0.6))
    assert error.reason is RecordingReason.TRUNCATED and "bytes are there" in error.detail


def test_missing_times_are_asked_for_by_name(path):
    write_h5(path, camera_timing=None)
    error = refusal(path)
    assert error.reason is RecordingReason.MISSING_VALUE and "'frame_interval_s'" in error.detail
    with open_recording(path, {"frame_interval_s": "0.5"}) as recording:
        np.testing.assert_allclose(recording.t_s, 0.5 * np.arange(20))


@pytest.mark.parametrize("timing", [np.ones((2, 2, 20)), np.empty(0), np.array([b"x"] * 20), np.ones(20, "c8"), 1.0])
def test_times_that_are_no_row_of_numbers(path, timing):
    write_h5(path, camera_timing=timing)
    error = refusal(path)
    assert error.reason is RecordingReason.BAD_DATASET and "'camera_timing'" in error.detail


def test_row_one_of_the_timing_is_used(path):
    write_h5(path, camera_timing=np.stack([np.arange(20.0), 5 + 0.02 * np.arange(20), np.zeros(20)]))
    with open_recording(path) as recording:
        np.testing.assert_allclose(recording.t_s, 0.02 * np.arange(20))


def test_too_few_times(path):
    write_h5(path, camera_timing=0.01 * np.arange(15))
    with open_recording(path) as recording:
        assert recording.frames == 15
        assert recording.faults == [("recording.bad_dataset", "'camera_timing' has 15 times for 20 frames", 15)]


def test_too_many_times(path):
    write_h5(path, camera_timing=0.01 * np.arange(25))
    with open_recording(path) as recording:
        assert recording.frames == 20 and recording.faults[0].index == 20


def test_a_frame_without_a_time_is_left_out(path):
    timing = 0.01 * np.arange(20)
    timing[7] = np.nan
    write_h5(path, camera_timing=timing)
    with open_recording(path) as recording:
        kept = [*range(7), *range(8, 20)]
        assert recording.frame_index.tolist() == kept
        np.testing.assert_array_equal(recording.read(0, 19), movie()[kept])
        np.testing.assert_array_equal(recording.read(5, 9), movie()[[5, 6, 8, 9]])
        (fault,) = recording.faults
        assert fault.index == 7 and "'camera_timing' is not a number at index 7" in fault.detail


def test_a_reversed_time_axis_is_refused(path):
    write_h5(path, camera_timing=-0.01 * np.arange(20))
    error = refusal(path)
    assert error.index == 0 or "index" in error.detail
    assert "'camera_timing' runs backwards" in error.detail


def test_a_clock_that_was_reset_keeps_the_longer_side(path):
    write_h5(path, camera_timing=np.concatenate([3 + 0.01 * np.arange(12), 0.01 * np.arange(8)]))
    with open_recording(path) as recording:
        assert recording.frames == 12
        assert recording.faults[0].index == 12 and "runs backwards at index 12" in recording.faults[0].detail


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (np.ones((3, 30)), "shape"),
        (np.ones(30), "shape"),
        (np.full((4, 30), np.nan), "not a number"),
        (np.ones((4, 0)), ""),
    ],
)
def test_a_cell_record_that_cannot_be_used_is_left_out(path, rows, words):
    write_h5(path, potentiostat_value=rows)
    with open_recording(path) as recording:
        assert recording.cell is None and recording.frames == 20
        (fault,) = recording.faults
        assert "potentiostat_value" in fault.detail and words in fault.detail


def test_nan_in_the_cell_record_drops_the_row(path):
    rows = cell_rows()
    rows[1, 4] = np.nan
    write_h5(path, potentiostat_value=rows)
    with open_recording(path) as recording:
        assert len(recording.cell.t_s) == 29 and np.isfinite(recording.cell.current_ma).all()
        (fault,) = recording.faults
        assert fault.index == 4 and "'potentiostat_value' is not a number at index 4" in fault.detail


def test_unknown_charge_is_integrated(path):
    rows = cell_rows()
    rows[2] = np.nan
    write_h5(path, potentiostat_value=rows)
    with open_recording(path) as recording:
        np.testing.assert_allclose(recording.cell.charge_mah, cell_rows()[2], atol=1e-12)
        assert any("integrated" in note for note in recording.notes)


def test_records_that_do_not_meet_are_told(path):
    write_h5(path, potentiostat_value=cell_rows(t0_s=5000.0))
    with open_recording(path) as recording:
        assert "potentiostat_offset_s" in recording.faults[0].detail
    with open_recording(path, {"potentiostat_offset_s": -5000}) as recording:
        assert recording.faults == [] and recording.cell.t_s[0] == pytest.approx(0)


@pytest.mark.parametrize("name", ["dark", "flat"])
@pytest.mark.parametrize("bad", [np.ones((5, 5)), np.full((HEIGHT, WIDTH), np.nan), np.full((HEIGHT, WIDTH), b"x")])
def test_a_map_that_does_not_fit_is_left_out(path, name, bad):
    write_h5(path, **{name: bad})
    with open_recording(path) as recording:
        assert getattr(recording.info, name) is None and f"'{name}'" in recording.faults[0].detail


def test_a_flat_field_that_is_not_positive_is_left_out(path):
    flat = np.ones((HEIGHT, WIDTH))
    flat[2, 5] = 0
    write_h5(path, flat=flat)
    with open_recording(path) as recording:
        assert recording.info.flat is None and "(2, 5)" in recording.faults[0].detail


def test_frames_never_written_are_not_frames(path):
    with h5py.File(path, "w") as file:
        frames = file.create_dataset("movie", (1000, HEIGHT, WIDTH), "u2", chunks=(1, HEIGHT, WIDTH))
        frames[:20] = movie()
        file["camera_timing"] = 0.01 * np.arange(1000)
    with open_recording(path) as recording:
        assert recording.frames == 20
        assert recording.faults[0] == ("recording.truncated", "'movie' stores 20 of its 1000 frames, none at 20", 20)
        np.testing.assert_array_equal(recording.read(0, 20), movie())


def test_a_hole_in_the_movie_is_left_out(path):
    with h5py.File(path, "w") as file:
        frames = file.create_dataset("movie", (20, HEIGHT, WIDTH), "u2", chunks=(2, 16, WIDTH))
        frames[:8], frames[10:] = movie()[:8], movie()[10:]
        frames[8:10, :16] = 7  # half of a block of frames only
        file["camera_timing"] = 0.01 * np.arange(20)
    with open_recording(path) as recording:
        assert recording.frame_index.tolist() == [*range(8), *range(10, 20)]
        assert recording.faults[0].index == 8


@pytest.mark.parametrize("shape", [(10**12, HEIGHT, WIDTH), (20, 10**6, 10**6), (10**6, 2000, 2000)])
def test_huge_declared_shapes(path, shape):
    with h5py.File(path, "w") as file:
        file.create_dataset("movie", shape, "u2", chunks=(1, 16, 16))
        file["camera_timing"] = 0.01 * np.arange(20)
    assert "'movie'" in refusal(path).detail


def test_a_huge_declared_time_axis(path):
    write_h5(path, camera_timing=None)
    with h5py.File(path, "a") as file:
        file.create_dataset("camera_timing", (10**12,), "f8", chunks=(1000,))
    assert "'camera_timing' declares" in refusal(path).detail


def damaged_chunk(path, chunk):
    """Overwrite the middle of a compressed chunk."""
    with h5py.File(path, "r") as file:
        info = file["movie"].id.get_chunk_info(chunk)
    with path.open("r+b") as raw:
        raw.seek(info.byte_offset + info.size // 3)
        raw.write(b"\xff" * (info.size // 3))


def test_a_damaged_chunk_is_named_and_survived(path):
    write_h5(path, options={"chunks": (2, HEIGHT, WIDTH), "compression": "gzip", "fletcher32": True})
    damaged_chunk(path, 3)
    with open_recording(path) as recording:
        with pytest.raises(RecordingError) as caught:
            recording.read(0, 20)
        assert caught.value.index == 6 and "'movie' cannot be read at frame 6" in caught.value.detail
        found = {start + i: frame for start, block in recording.blocks() for i, frame in enumerate(block)}
        assert sorted(found) == [*range(6), *range(8, 20)]
        assert all((frame == movie()[i]).all() for i, frame in found.items())
        (fault,) = recording.faults
        assert fault.index == 6 and "2 frames left out" in fault.detail
        list(recording.blocks())
        assert len(recording.faults) == 1


def test_a_lost_disk_is_an_error(path):
    data = movie(300)
    write_h5(path, data, options={"chunks": (1, HEIGHT, WIDTH), "fletcher32": True}, potentiostat_value=None)
    for chunk in range(150, 290):
        damaged_chunk(path, chunk)
    with open_recording(path) as recording, pytest.raises(RecordingError, match="frame 150"):
        list(recording.blocks())


def test_a_sidecar_stands_in_for_a_missing_record(path):
    write_h5(path, potentiostat_value=None)
    path.with_suffix(".csv").write_text("Test Time / s,Voltage / V,Current / A\n0,3.5,0.001\n0.1,3.6,0.001\n")
    with open_recording(path) as recording:
        assert recording.cell.current_ma.tolist() == [1.0, 1.0]


def test_one_frame(path):
    write_h5(path, movie(1), potentiostat_value=None)
    with open_recording(path) as recording:
        assert recording.frames == 1 and recording.t_s.tolist() == [0.0]


def test_bit_depth_that_the_pixels_exceed(path):
    data = movie()
    data[0, 1, 1] = 5000
    write_h5(path, data, attrs={"bit_depth": 12})
    with open_recording(path) as recording:
        assert recording.bit_depth == 16 and "5000 DN" in recording.faults[0].detail


def test_close_is_idempotent(path):
    recording = open_recording(write_h5(path))
    recording.close()
    recording.close()
    with pytest.raises(RecordingError):
        recording.read(0, 1)


def test_a_text_whose_heap_has_no_end_is_refused_in_time(monkeypatch):
    """HDF5 1.14 loops for ever in it."""
    monkeypatch.setattr(hdf5_text, "DEADLINE_S", 3.0)
    refused = refusal(Path(__file__).parents[2] / "data" / "endless.h5")
    assert refused.reason is RecordingReason.UNREADABLE
    assert "attributes electrode of 'endless.h5'" in refused.detail
