import json
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace

import numpy as np

from daemon.engine.measures import MaskSet, NoiseModel
from daemon.recipe import MaskSettings, Recipe
from daemon.runs.metadata import run_metadata
from daemon.runs.prepare import Prepared
from hw.camera.contract import CameraInfo, PixelFormat

NOISE = NoiseModel(8.0, 7.0, 64.0, True, "estimated", "assumed", "given", 0.04, 3.0)


def prepared_of():
    masks = MaskSet(np.zeros((4, 4), np.int32), np.array([1]), np.ones(1), np.ones(1), {}, 1.4, 96.0, version=3)
    return Prepared(masks, SimpleNamespace(defects=np.array([3, 7])), NOISE)


def metadata(**changes):
    flat = np.ones((4, 4), np.float32)
    values = {
        "run_id": "r1", "started": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "recipe": Recipe(name="a run", masks=MaskSettings(threshold_sigma=4.0)), "prepared": prepared_of(),
        "camera": CameraInfo("m", "s", 4, 4, PixelFormat.MONO12P, 50.0, exposure_us=900.0, flat=flat),
        "electrode": "anode", "capacity_mah": 0.5, "source": "driver twin",
    }  # fmt: skip
    return run_metadata(**values | changes)


def test_everything_a_value_depends_on_is_there_as_plain_json():
    found = json.loads(json.dumps(metadata()))
    assert found["run_id"] == "r1" and found["started_utc"] == "2026-01-02T03:04:05+00:00"
    assert found["recipe"]["masks"]["threshold_sigma"] == 4.0 and found["recipe"]["name"] == "a run"
    assert found["noise_model"] == {
        "gain_e_per_dn": 8.0, "read_noise_e": 7.0, "dark_dn": 64.0, "estimated": True, "gain_origin": "estimated",
        "read_noise_origin": "assumed", "dark_origin": "given", "gain_sigma_e_per_dn": 0.04, "read_noise_sigma_e": 3.0,
        "dark_sigma_dn": None,
    }  # fmt: skip
    assert found["camera"]["pixel_format"] == "Mono12p" and found["camera"]["exposure_us"] == 900.0
    assert (found["pixel_size_nm"], found["psf_sigma_px"], found["mask_version"]) == (96.0, 1.4, 3)
    assert (found["electrode"], found["capacity_mah"], found["source"]) == ("anode", 0.5, "driver twin")
    assert found["software_version"] and found["python_version"]
    assert found["defective_pixels"] == [3, 7] and not found["dark_frame"] and not found["flat_frame"]


def test_maps_are_left_out_and_notes_are_kept():
    found = metadata(notes=["the bit depth was estimated"])
    assert not {"dark", "flat"} & found["camera"].keys()
    assert found["notes"] == [
        "the bit depth was estimated", "gain 8 e/DN (estimated, +-0.5 %)", "read noise 7 e (assumed, +-43 %)",
    ]  # fmt: skip


def test_what_the_camera_could_not_be_made_to_do_is_noted():
    camera = CameraInfo("m", "s", 4, 4, PixelFormat.MONO8, 50.0, notes=("GammaEnable stays True",))
    prepared = replace(prepared_of(), noise=NoiseModel(8.0, 7.0, 64.0))
    assert metadata(camera=camera, prepared=prepared, notes=["first"])["notes"] == ["first", "GammaEnable stays True"]


def test_what_was_given_needs_no_note():
    prepared = replace(prepared_of(), noise=NoiseModel(8.0, 7.0, 64.0))
    assert metadata(prepared=prepared)["notes"] == []
