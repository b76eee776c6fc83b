"""The whole daemon on an emulated camera: a run goes on after the camera was pulled and put back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from daemon.store.reader import RunReader
from hw.twin.usb.client import BusClient
from tests.service import Service

pytestmark = pytest.mark.timeout(240)

SCENE = {"particles": 30, "height_px": 200, "width_px": 260, "pixel_format": "Mono8", "loop_frames": 32}
SETTINGS = """
autostart = { name = "still", reference_frames = 10 }
[store]
state_dir = "@STATE@"
[api]
port = 0
[camera]
driver = "u3v"
options = { frame_rate_hz = 25.0, pixel_size_nm = 96.0, cache = "@STATE@" }
[potentiostat]
driver = "none"
"""


def frames_of(status: dict[str, Any], more_than: int) -> int | None:
    run = status["run"]
    return run["frames"] if run and run["state"] == "running" and run["frames"] > more_than else None


def test_a_run_goes_on_after_the_camera_was_pulled(bus: BusClient, tmp_path: Path) -> None:
    bus.plug("cam", "u3v", source="loop", optics=SCENE | {"particles": 30})
    with Service(tmp_path, SETTINGS) as service:
        service.wait_for(lambda status: frames_of(status, 40), 120)
        run_id = service.get("/api/v1/status")["run"]["run_id"]
        bus.unplug("cam")
        service.wait_for(lambda status: _camera(status)["reason"] == "camera.unplugged", 20)
        before = service.get("/api/v1/status")["run"]["frames"]
        bus.plug("cam")
        service.wait_for(lambda status: _camera(status)["state"] == "ready" and frames_of(status, before + 40), 60)
        service.post(f"/api/v1/runs/{run_id}/stop")
        service.wait_for(lambda status: status["run"] is None, 60)
        service.wait_for(lambda status: abs(status["frames"]["in_flight"]) <= 2)
        frames = service.get("/api/v1/status")["frames"]
        assert service.stop() == 0
    assert frames["captured"] - frames["idle"] - frames["stored"] - sum(frames["dropped"].values()) <= 3
    with RunReader(service.state_dir / "runs" / f"{run_id}.db") as reader:
        kinds = [str(event.kind) for event in reader.events()]
    assert "camera_lost" in kinds and "camera_back" in kinds


def _camera(status: dict[str, Any]) -> dict[str, Any]:
    return next(part for part in status["parts"] if part["name"] == "camera")
