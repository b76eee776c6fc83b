"""The metadata row of a run: what every value in it can be traced to."""

from __future__ import annotations

import platform
from dataclasses import asdict
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from daemon.engine.measures import NoiseModel
from daemon.recipe import Recipe
from daemon.runs.prepare import Prepared
from hw.camera.contract import CameraInfo

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def run_metadata(
    *,
    run_id: str,
    started: datetime,
    recipe: Recipe,
    prepared: Prepared,
    camera: CameraInfo,
    electrode: str,
    capacity_mah: float | None,
    source: str,
    notes: list[str] | None = None,
    dark_frame: bool = False,
    flat_frame: bool = False,
    clock_synchronised: bool | None = None,
) -> dict[str, Any]:
    """Plain JSON values by name. `source` names the camera driver or the recording."""
    return {
        "run_id": run_id,
        "started_utc": started.isoformat(),
        "software_version": version("photometryd"),
        "python_version": platform.python_version(),
        "boot_id": BOOT_ID.read_text().strip() if BOOT_ID.exists() else None,
        "recipe": recipe.model_dump(mode="json"),
        "source": source,
        "camera": {name: value for name, value in asdict(camera).items() if name not in ("dark", "flat")},
        "noise_model": asdict(prepared.noise),
        "pixel_size_nm": prepared.masks.pixel_size_nm,
        "psf_sigma_px": prepared.masks.psf_sigma_px,
        "mask_version": prepared.masks.version,
        "electrode": electrode,
        "capacity_mah": capacity_mah,
        "dark_frame": dark_frame,
        "flat_frame": flat_frame,
        "defective_pixels": prepared.operator.defects.tolist(),
        "clock_synchronised": clock_synchronised,
        "notes": [*(notes or []), *camera.notes, *_noise_notes(prepared.noise)],
    }


def _noise_notes(noise: NoiseModel) -> list[str]:
    """What of the noise model nobody gave."""
    origins = (noise.gain_origin, noise.read_noise_origin, noise.dark_origin)
    return [told for told, origin in zip(noise.sentences(), origins, strict=True) if origin != "given"]
