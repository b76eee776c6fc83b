"""Whatever the bytes, only a `RecordingError` comes out."""

import io
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hw.camera.replay import ReplaySettings
from hw.errors import RecordingError, RecordingReason
from hw.recording import VALUE_NAMES, open_recording
from tests.hw.recording.builders import write_h5, write_tiff

FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
MAGIC = [b"", b"\x89HDF\r\n\x1a\n", b"II*\0", b"MM\0*", b"II+\0\x08\0\0\0"]


def opens_or_refuses(path):
    """Open and read everything; True when that worked."""
    try:
        with open_recording(path, {"frame_interval_s": 0.01}) as recording:
            for _ in recording.blocks():
                pass
            return True
    except RecordingError as error:
        assert error.detail and error.code.startswith("recording.")
        return False


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"II*", b"\x89HDF\r\n\x1a\n", b"hello\n" * 1000])
def test_what_is_no_recording(tmp_path, content):
    path = tmp_path / "r.h5"
    path.write_bytes(content)
    with pytest.raises(RecordingError, match=r"r\.h5"):
        open_recording(path)


def test_what_is_no_file(tmp_path):
    for path, words in ((tmp_path / "gone.h5", "does not exist"), (tmp_path, "is a directory")):
        with pytest.raises(RecordingError, match=words) as caught:
            open_recording(path)
        assert caught.value.reason is RecordingReason.UNREADABLE


def test_the_name_does_not_matter(tmp_path):
    write_h5(tmp_path / "r.dat")
    write_tiff(tmp_path / "t.bin")
    assert opens_or_refuses(tmp_path / "r.dat") and opens_or_refuses(tmp_path / "t.bin")


def test_hdf5_behind_a_user_block(tmp_path):
    with h5py.File(tmp_path / "r.h5", "w", userblock_size=1024) as file:
        file["movie"] = np.ones((5, 32, 32), "u1")
    assert opens_or_refuses(tmp_path / "r.h5")


@FUZZ
@given(st.sampled_from(MAGIC), st.binary(max_size=2000))
def test_random_bytes(tmp_path, magic, rest):
    path = tmp_path / "r.bin"
    path.write_bytes(magic + rest)
    assert not opens_or_refuses(path)


def small_tiff(**options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.full((4, 16, 16), 9, "u1"), photometric="minisblack", **options)
    return buffer.getvalue()


TIFFS = [small_tiff(), small_tiff(compression="zlib"), small_tiff(metadata=None), small_tiff(bigtiff=True),
         small_tiff(ome=True, metadata={"axes": "TYX", "TimeIncrement": 1.0})]  # fmt: skip


@FUZZ
@given(st.data())
def test_mutated_tiff(tmp_path, data):
    raw = bytearray(data.draw(st.sampled_from(TIFFS)))
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "r.tif"
    path.write_bytes(raw[: data.draw(st.integers(8, len(raw)))] if data.draw(st.booleans()) else raw)
    opens_or_refuses(path)


def small_h5(**options):
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.create_dataset("movie", data=np.full((4, 16, 16), 9, "u2"), **options)
        file["camera_timing"] = 0.01 * np.arange(4)
        file["potentiostat_value"] = np.ones((4, 3))
        file.attrs["pixel_size_nm"] = 96.0
    return buffer.getvalue()


H5S = [small_h5(), small_h5(chunks=(1, 16, 16)), small_h5(compression="gzip")]


@FUZZ
@given(st.data())
def test_mutated_hdf5(tmp_path, data):
    raw = bytearray(data.draw(st.sampled_from(H5S)))
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "r.h5"
    path.write_bytes(raw[: data.draw(st.integers(8, len(raw)))] if data.draw(st.booleans()) else raw)
    opens_or_refuses(path)


def test_importing_costs_little():
    """The package is imported by the command line for its names: no file library is loaded before a file is."""
    code = "import sys, hw.recording; assert not {'h5py', 'tifffile', 'pyarrow'} & set(sys.modules), sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_manual_names_every_value_and_option():
    text = (Path(__file__).parents[3] / "docs" / "recordings.md").read_text()
    for name in (*VALUE_NAMES, *ReplaySettings.model_fields):
        assert f"`{name}`" in text, name
