"""The pages of promises say what the code keeps."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from daemon.config import KNOWN
from daemon.engine.measures import MaskSet, NoiseModel
from daemon.recipe import Recipe
from daemon.runs.metadata import run_metadata
from daemon.runs.prepare import Prepared
from daemon.schema import UNITS
from daemon.tables import CHUNK_FRAME_COLUMNS, CHUNK_PARTICLE_COLUMNS, EXPORT_TABLES
from hw.camera.contract import CameraInfo, PixelFormat
from tests.measuring import operator_of
from tests.scenes import PoissonScene

PROMISES = Path(__file__).parents[1] / "docs" / "promises"
HEADINGS = ["## How it is kept", "## How it is tested", "## What is not promised"]


def page(name: str) -> str:
    return (PROMISES / f"{name}.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted(PROMISES.glob("*.md")), ids=lambda path: path.stem)
def test_each_says_how_it_is_kept_and_tested_and_where_it_ends(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert re.findall(r"^## (?:How it is|What is not).*$", text, flags=re.MULTILINE) == HEADINGS
    assert re.search(r"^\*\*", text, flags=re.MULTILINE), "the promise itself stands in bold"
    assert re.search(r"`tests/[\w/]+\.py::test_\w+`", text), "no test is named"


def test_the_metadata_holds_what_the_page_says() -> None:
    scene = PoissonScene(seed=3, height=96, width=128, particles=3)
    masks = MaskSet(scene.labels(), np.arange(3), scene.y_px, scene.x_px, {}, 1.5, None)
    noise = NoiseModel(8.0, 7.0, 64.0, True, "estimated", "assumed", "given", 0.04, 3.0)
    metadata = run_metadata(
        run_id="r1",
        started=datetime(2026, 1, 2, tzinfo=UTC),
        recipe=Recipe(name="formation"),
        prepared=Prepared(masks, operator_of(scene), noise),
        camera=CameraInfo("model", "serial", 96, 128, PixelFormat.MONO12, 50.0, clock_id="c", dark=np.ones((96, 128))),
        electrode="cathode",
        capacity_mah=None,
        source="driver twin",
    )
    assert [name for name in metadata if f"`{name}`" not in page("provenance")] == []
    assert metadata["noise_model"] == {
        "gain_e_per_dn": 8.0, "read_noise_e": 7.0, "dark_dn": 64.0, "estimated": True, "gain_origin": "estimated",
        "read_noise_origin": "assumed", "dark_origin": "given", "gain_sigma_e_per_dn": 0.04, "read_noise_sigma_e": 3.0,
        "dark_sigma_dn": None,
    }  # fmt: skip
    assert [name for name in metadata["noise_model"] if f"`{name}`" not in page("provenance")] == []
    assert metadata["recipe"]["name"] == "formation" and metadata["recipe"]["masks"]["threshold_sigma"] > 0
    assert metadata["pixel_size_nm"] is None and metadata["capacity_mah"] is None, "what nobody knew is not guessed"
    assert {"model", "serial", "exposure_us", "frame_rate_hz", "clock_id"} <= metadata["camera"].keys()
    assert "dark" not in metadata["camera"]


def test_endings_of_settings_and_columns_are_on_the_page() -> None:
    """Of every name that states a unit; an ending that only some names have would be noticed here."""
    listed = set(re.findall(r"`_(\w+)`", page("units")))
    names = {name.rpartition(".")[2] for name, setting in KNOWN.items() if setting.kind in ("number", "integer")}
    names |= {column for columns in EXPORT_TABLES.values() for column in columns if " " not in column}
    names |= {*CHUNK_FRAME_COLUMNS, *CHUNK_PARTICLE_COLUMNS}
    counted = {"frames", "batches", "restarts", "sigma", "e_per_dn"}  # say what they count, or of what
    for name in names:
        unit = next((word for word in sorted(UNITS, key=len, reverse=True) if name.endswith(f"_{word}")), None)
        assert unit is None or unit in listed | counted, name


def test_every_reason_for_a_loss_is_on_the_page() -> None:
    source = "".join(
        (Path(__file__).parents[1] / "daemon" / name).read_text(encoding="utf-8")
        for name in ("engine/acquisition.py", "engine/worker.py", "engine/book.py", "pulse.py", "ctl/analyse.py")
    )
    reasons = set(re.findall(r'"((?:camera|ring|link|engine|science|store|recording)\.[a-z]+)"', source))
    assert len(reasons) >= 6
    assert [reason for reason in sorted(reasons) if f"`{reason}`" not in page("frame-accounting")] == []
