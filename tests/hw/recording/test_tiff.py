import logging
from pathlib import Path

import numpy as np
import pytest
import tifffile

from hw.camera.contract import PixelFormat
from hw.errors import RecordingError, RecordingReason
from hw.recording import open_recording
from tests.hw.recording.builders import cut, movie, write_tiff

DATA = Path(__file__).parents[2] / "data"
INTERVAL = {"frame_interval_s": 0.01}
OME = {
    "axes": "TYX", "TimeIncrement": 20, "TimeIncrementUnit": "ms", "PhysicalSizeX": 0.096, "PhysicalSizeXUnit": "µm",
    "PhysicalSizeY": 0.096, "PhysicalSizeYUnit": "µm", "SignificantBits": 12,
}  # fmt: skip


def refusal(path, **overrides):
    with pytest.raises(RecordingError) as caught:
        open_recording(path, overrides)
    return caught.value


@pytest.fixture
def path(tmp_path):
    return tmp_path / "r.tif"


def whole(recording):
    return np.concatenate([block for _, block in recording.blocks()])


@pytest.mark.parametrize("dtype", ["u1", "u2", ">u2"])
@pytest.mark.parametrize(
    "options",
    [{}, {"metadata": None}, {"compression": "zlib"}, {"rowsperstrip": 5}, {"tile": (16, 16)}, {"bigtiff": True}],
)
def test_every_layout_reads_the_same(path, dtype, options):
    data = movie(dtype=dtype)
    with tifffile.TiffWriter(
        path, byteorder=">" if dtype[0] == ">" else "<", bigtiff=options.get("bigtiff", False)
    ) as file:
        file.write(data, photometric="minisblack", **{k: v for k, v in options.items() if k != "bigtiff"})
    with open_recording(path, INTERVAL) as recording:
        assert recording.frames == 20 and recording.faults == []
        assert recording.dtype == np.dtype(dtype).newbyteorder("=")
        np.testing.assert_array_equal(whole(recording), data)
        np.testing.assert_array_equal(recording.read(7, 9), data[7:9])


def test_pages_written_one_by_one(path):
    with tifffile.TiffWriter(path) as file:
        for frame in movie(dtype="u1"):
            file.write(frame, photometric="minisblack", contiguous=False)
    with open_recording(path, INTERVAL) as recording:
        np.testing.assert_array_equal(whole(recording), movie(dtype="u1"))


def test_the_interval_is_asked_for_by_name(path):
    error = refusal(write_tiff(path))
    assert error.reason is RecordingReason.MISSING_VALUE and "'frame_interval_s'" in error.detail


def test_ome_says_interval_pixel_size_and_depth(tmp_path):
    path = write_tiff(tmp_path / "r.ome.tif", movie(dtype="u2"), metadata=OME)
    with open_recording(path) as recording:
        assert recording.info.frame_rate_hz == pytest.approx(50)
        assert recording.info.pixel_size_nm == pytest.approx(96)
        assert recording.info.pixel_format is PixelFormat.MONO12
        np.testing.assert_array_equal(whole(recording), movie(dtype="u2"))
    with open_recording(path, {"frame_interval_s": 1, "pixel_size_nm": 50}) as recording:
        assert recording.info.frame_rate_hz == 1 and recording.info.pixel_size_nm == 50


def test_ome_planes_say_the_times(tmp_path):
    t_s = [0.5 + 0.02 * i for i in range(20)]
    metadata = OME | {
        "Plane": {"DeltaT": t_s, "DeltaTUnit": ["s"] * 20, "ExposureTime": [2.0] * 20, "ExposureTimeUnit": ["ms"] * 20}
    }
    path = write_tiff(tmp_path / "r.ome.tif", movie(dtype="u2"), metadata=metadata)
    with open_recording(path) as recording:
        np.testing.assert_allclose(recording.t_s, 0.02 * np.arange(20), atol=1e-12)
        assert recording.info.exposure_us == pytest.approx(2000)
        assert "DeltaT" in recording.notes[0]


def test_pixels_that_are_not_square_have_no_size(tmp_path):
    path = write_tiff(tmp_path / "r.ome.tif", movie(dtype="u2"), metadata=OME | {"PhysicalSizeY": 0.2})
    with open_recording(path) as recording:
        assert recording.info.pixel_size_nm is None and "not square" in recording.notes[0]


def test_imagej_says_interval_and_pixel_size(path):
    tifffile.imwrite(
        path, movie(dtype="u1"), imagej=True, resolution=(1 / 0.096, 1 / 0.096),
        metadata={"axes": "TYX", "finterval": 40.0, "tunit": "ms", "unit": "um"},
    )  # fmt: skip
    with open_recording(path) as recording:
        assert recording.info.frame_rate_hz == pytest.approx(25)
        assert recording.info.pixel_size_nm == pytest.approx(96)


def test_values_in_the_description_are_read(path):
    write_tiff(path, metadata={"frame_interval_s": 0.02, "gain_e_per_dn": 7.0, "else": 1})
    with open_recording(path) as recording:
        assert recording.info.frame_rate_hz == pytest.approx(50) and recording.info.gain_e_per_dn == 7


def test_the_cell_record_lies_beside(path):
    write_tiff(path)
    path.with_suffix(".csv").write_text("Test Time / s,Voltage / V,Current / A\n0,3.5,0.001\n0.1,3.6,0.001\n")
    with open_recording(path, INTERVAL | {"potentiostat_offset_s": 0.05}) as recording:
        np.testing.assert_allclose(recording.cell.t_s, [0.05, 0.15])


def test_a_sidecar_that_cannot_be_used_costs_the_cell_only(path):
    write_tiff(path)
    path.with_suffix(".parquet").write_bytes(b"nonsense")
    with open_recording(path, INTERVAL) as recording:
        assert recording.cell is None and "'r.parquet'" in recording.faults[0].detail


@pytest.mark.parametrize(
    ("data", "options", "words"),
    [
        (np.zeros((20, 32, 48, 3), "u1"), {"photometric": "rgb"}, "colour"),
        (np.zeros((20, 32, 48), "f4"), {"photometric": "minisblack"}, "float32"),
        (np.zeros((20, 32, 48), "i2"), {"photometric": "minisblack"}, "int16"),
        (np.zeros((5, 4, 32, 48), "u1"), {"photometric": "minisblack"}, "axes"),
        (np.zeros((20, 8, 48), "u1"), {"photometric": "minisblack"}, "8 x 48"),
    ],
)
def test_frames_that_are_not_images(path, data, options, words):
    tifffile.imwrite(path, data, **options)
    error = refusal(path, **INTERVAL)
    assert error.reason is RecordingReason.BAD_DATASET and words in error.detail and "r.tif" in error.detail


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}])
def test_a_truncated_file_gives_its_whole_frames(path, options):
    cut(write_tiff(path, **options), 0.6)
    with open_recording(path, INTERVAL) as recording:
        assert 8 <= recording.frames <= 14
        assert recording.faults[0].code == "recording.truncated" and recording.faults[0].index == recording.frames
        np.testing.assert_array_equal(whole(recording), movie(dtype="u1")[: recording.frames])


def test_a_truncated_imagej_stack_gives_its_whole_frames(path):
    tifffile.imwrite(path, movie(dtype="u1"), imagej=True, metadata={"axes": "TYX", "finterval": 0.04})
    cut(path, 0.5)
    with open_recording(path) as recording:
        assert 8 <= recording.frames <= 10 and recording.faults[0].index == recording.frames
        np.testing.assert_array_equal(whole(recording), movie(dtype="u1")[: recording.frames])


def test_a_file_that_ends_within_its_first_frame(path):
    error = refusal(cut(write_tiff(path), 0.02), **INTERVAL)
    assert error.reason in (RecordingReason.TRUNCATED, RecordingReason.BAD_DATASET, RecordingReason.UNREADABLE)


def test_a_damaged_page_is_named_and_survived(path):
    write_tiff(path, compression="zlib")
    with tifffile.TiffFile(path) as file:
        offset, size = file.pages[6].dataoffsets[0], file.pages[6].databytecounts[0]
    with path.open("r+b") as raw:
        raw.seek(offset)
        raw.write(b"\xff" * size)
    with open_recording(path, INTERVAL) as recording:
        with pytest.raises(RecordingError, match="page 6") as caught:
            recording.read(4, 9)
        assert caught.value.index == 6
        assert sum(len(block) for _, block in recording.blocks()) == 19
        assert recording.faults[0].index == 6


def test_a_chain_of_pages_that_runs_in_a_circle(path):
    write_tiff(path, compression="zlib")
    with tifffile.TiffFile(path) as file:
        first, last, tags = file.pages[0].offset, file.pages[19].offset, len(file.pages[19].tags)
    with path.open("r+b") as raw:
        raw.seek(last + 2 + 12 * tags)
        raw.write(first.to_bytes(4, "little"))
    assert "circle after page 19" in refusal(path, **INTERVAL).detail


def test_further_series_are_told(path):
    with tifffile.TiffWriter(path) as file:
        file.write(movie(dtype="u1"), photometric="minisblack")
        file.write(np.zeros((3, 20, 20), "u1"), photometric="minisblack")
    with open_recording(path, INTERVAL) as recording:
        assert recording.frames == 20 and "2 image series" in recording.faults[0].detail


def test_tifffile_does_not_log_over_our_shoulder(path, caplog):
    with caplog.at_level(logging.DEBUG, "tifffile"), open_recording(cut(write_tiff(path), 0.5), INTERVAL) as recording:
        whole(recording)
    assert caplog.records == []
    assert not logging.getLogger("tifffile").disabled


def test_real_footage():
    with open_recording(DATA / "bulk_water.tif", {"frame_interval_s": 1 / 24, "pixel_size_nm": 351}) as recording:
        assert recording.frames == 60 and recording.faults == []
        assert (recording.info.height_px, recording.info.width_px) == (424, 640)
        frames = whole(recording)
        assert frames.shape == (60, 424, 640) and frames.dtype == np.uint8 and 60 < frames.mean() < 200
