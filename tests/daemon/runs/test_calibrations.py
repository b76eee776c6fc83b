from dataclasses import replace

import numpy as np
import pytest

from daemon.runs.calibrations import calibrations_for
from daemon.store.writer import StoreWriter
from hw.camera.contract import CameraInfo, PixelFormat

SHAPE = (6, 8)
TWELVE = {"pixel_format": "Mono12", "bit_depth": 12, "exposure_us": 1000.0}
EIGHT = TWELVE | {"pixel_format": "Mono8", "bit_depth": 8}
CAMERA = CameraInfo("m", "s", *SHAPE, PixelFormat.MONO12, 50.0, exposure_us=1000.0)


def level(dn, shape=SHAPE):
    return np.full(shape, dn, np.float32)


@pytest.fixture
def kept(tmp_path):
    """Store frames of (kind, frame, summary); the path of their catalogue."""

    def keep(*frames):
        writer = StoreWriter(tmp_path / "instrument.db")
        writer.start()
        try:
            for kind, frame, summary in frames:
                writer.put_instrument_calibration(kind, frame, summary).result(10)
        finally:
            writer.stop(10)
        return tmp_path / "instrument.db"

    return keep


def test_without_stored_frames_there_is_nothing_to_say(kept):
    found = calibrations_for(CAMERA, kept())
    assert (found.dark, found.flat, found.notes) == (None, None, ())


def test_the_newest_frames_that_fit_are_used(kept):
    flat = level(1064)
    flat[0, 0] = 2064
    found = calibrations_for(
        CAMERA, kept(("dark", level(9), TWELVE), ("dark", level(64), TWELVE), ("flat", flat, TWELVE))
    )
    assert (found.dark == 64).all() and found.notes == ()
    np.testing.assert_allclose(found.flat, (flat - 64) / (flat - 64).mean(), rtol=1e-6)


@pytest.mark.parametrize(
    ("summary", "shape", "words"),
    [
        (EIGHT, SHAPE, "it has 8 bits (Mono8), the camera's frames 12 (Mono12)"),
        ({"bit_depth": 16}, SHAPE, "it has 16 bits"),
        ({"frames": 200, "mean_dn": 64.0}, SHAPE, "it does not tell its bit depth"),
        (TWELVE, (4, 8), "it has 4 x 8 pixels, the camera's 6 x 8"),
    ],
)
@pytest.mark.parametrize("kind", ["dark", "flat"])
def test_a_frame_that_does_not_fit_is_left_out_and_said_so(kept, kind, summary, shape, words):
    found = calibrations_for(CAMERA, kept((kind, level(64, shape), summary)))
    assert found.dark is None and found.flat is None
    (note,) = found.notes
    assert note.startswith(f"the {kind} frame is left out: ") and words in note


def test_what_counts_is_the_depth_and_not_how_its_bits_are_packed(kept):
    packed = replace(CAMERA, pixel_format=PixelFormat.MONO12P)
    deep = replace(CAMERA, pixel_format=PixelFormat.MONO16, significant_bits=12)
    path = kept(("dark", level(64), TWELVE))
    for camera in (packed, deep):
        found = calibrations_for(camera, path)
        assert found.dark is not None and found.notes == ()
    assert calibrations_for(replace(CAMERA, pixel_format=PixelFormat.MONO8), path).dark is None


def test_a_dark_frame_of_another_exposure_is_used_and_said_so(kept):
    path = kept(("dark", level(64), TWELVE), ("flat", level(1000), TWELVE))
    found = calibrations_for(replace(CAMERA, exposure_us=2500.0), path)
    assert found.dark is not None and found.flat is not None
    assert found.notes == ("the dark frame was taken with an exposure of 1000 us, the run has 2500 us",)
    for same in (1000.4, None):
        assert calibrations_for(replace(CAMERA, exposure_us=same), path).notes == ()


def test_maps_of_the_camera_itself_win_and_stored_ones_are_not_judged(kept):
    path = kept(("dark", level(4), EIGHT), ("flat", level(1064), TWELVE))
    found = calibrations_for(replace(CAMERA, dark=level(64)), path)
    assert (found.dark == 64).all() and (found.flat == 1).all() and found.notes == ()
    own = level(1)
    found = calibrations_for(replace(CAMERA, flat=own), path)
    assert found.dark is None and found.flat is own and "dark frame is left out" in found.notes[0]
