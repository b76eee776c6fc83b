"""The whole daemon over the emulated bus: a charge, a pulled cable, a killed daemon."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from hw.twin.usb.client import BusClient
from tests.service import Service

pytestmark = pytest.mark.timeout(240)

SPEED = 60.0
SAMPLE = {"seed": 5, "particles": 15, "height_px": 200, "width_px": 260, "capacity_mah": 1.0, "cracks_per_h": 0.0}
TOML = f"""
[store]
state_dir = "@STATE@"
[api]
port = 0
[camera]
driver = "twin"
options = {{ world = "@WORLD@", frame_rate_hz = 20 }}
[potentiostat]
driver = "methodscript"
sample_deadline_s = 5.0
options = {{ clock_rate = {SPEED:g}, interval_s = 3.0 }}
[cell]
capacity_mah = 1.0
[cell.limits]
min_voltage_v = 2.8
max_voltage_v = 4.4
max_current_ma = 10
"""


def charge(service: Service, step: str) -> str:
    """Start a run of one step and wait until it drives; its id."""
    recipe = {"name": "test", "reference_frames": 10, "baseline_s": 10.0, "experiment": {"steps": [step]}}
    run_id = service.finished(service.post("/api/v1/runs", recipe), 90)["run_id"]
    service.wait_for(lambda s: s["cell"]["values"]["mode"] == "galvanostatic")
    return str(run_id)


def test_unplugged_killed_and_found_again(bus: BusClient, tmp_path: Path) -> None:
    folder = tmp_path / "service"
    folder.mkdir()
    drivers = {0: "cdc_acm", 1: "cdc_acm"}
    bus.plug("one", "methodscript-cdc", drivers=drivers, speed=SPEED, world=str(folder / "world"), **SAMPLE)
    service = Service(folder, TOML)
    service.start()
    try:
        run_id = charge(service, "Charge at 1C for 50 minutes")
        bus.unplug("one")
        service.wait_for(lambda s: s["cell"]["state"] == "lost")
        bus.plug("one")
        service.wait_for(lambda s: s["cell"]["state"] != "lost" and s["cell"]["values"]["mode"] == "off", 60)
        assert not bus.state("one")["cell_on"]
        deadline = time.monotonic() + 60
        while (run := service.get(f"/api/v1/runs/{run_id}"))["state"] in ("running", "stopping"):
            assert time.monotonic() < deadline, run
            time.sleep(0.1)
        assert run["reason"] == "cell.in_doubt"  # a device that is gone confirms nothing
        charge(service, "Charge at 1C for 50 minutes")
    finally:
        service.kill()
    assert bus.state("one")["cell_on"]
    with Service(folder, TOML) as again:
        status = again.wait_for(lambda s: s["cell"]["state"] == "tripped" and s)
        (line,) = [part for part in status["parts"] if part["name"] == "cell"]
        assert line["reason"] == "cell.found_on"
        assert not bus.state("one")["cell_on"]
        again.wait_for(lambda s: s["cell"]["values"]["mode"] == "off")
