"""The whole daemon on an emulated camera and an emulated potentiostat, beside the same scene through the twin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from daemon.store.reader import RunReader
from hw.twin.usb.client import BusClient
from tests.service import Service

pytestmark = [pytest.mark.timeout(500), pytest.mark.slow]

SAMPLE = {
    "seed": 5, "particles": 40, "height_px": 300, "width_px": 400, "capacity_mah": 0.5, "initial_soc": 0.4,
    "cracks_per_h": 0.0,
}  # fmt: skip
OPTICS = {"static": True, "pixel_format": "Mono12"}
RATE_HZ = 20.0
CYCLES = 3
EXPERIMENT = {"steps": ["Charge at 12C for 20 seconds", "Discharge at 12C for 20 seconds"], "cycles": CYCLES}
HEAD = """
[store]
state_dir = "@STATE@"
[api]
port = 0
[cell]
capacity_mah = 0.5
[cell.limits]
min_voltage_v = 2.6
max_voltage_v = 4.6
max_current_ma = 20
[potentiostat]
sample_deadline_s = 5.0
"""
EMULATED = f"""driver = "methodscript"
[camera]
driver = "u3v"
options = {{ frame_rate_hz = {RATE_HZ}, pixel_size_nm = 96.0, pixel_format = "Mono12", cache = "@STATE@" }}
"""
SIMULATED = (
    'driver = "twin"\n[potentiostat.options]\nworld = "@WORLD@"\n'
    + "\n".join(f"{name} = {value}" for name, value in SAMPLE.items())
    + f"""
[camera]
driver = "twin"
options = {{ world = "@WORLD@", frame_rate_hz = {RATE_HZ}, static = true, pixel_format = "Mono12" }}
"""
)


def ran(folder: Path, toml: str) -> tuple[dict[str, Any], dict[str, Any], Path]:
    """The experiment to its end: frame accounts, the run's summary, its file."""
    with Service(folder, HEAD + toml) as service:
        recipe = {"name": "three", "reference_frames": 10, "baseline_s": 2.0, "experiment": EXPERIMENT}
        run_id = service.finished(service.post("/api/v1/runs", recipe), 90)["run_id"]
        service.wait_for(lambda s: s["run"] is None, 240)
        service.wait_for(lambda s: abs(s["frames"]["in_flight"]) <= 2)
        frames, run = service.get("/api/v1/status")["frames"], service.get(f"/api/v1/runs/{run_id}")
        assert service.stop() == 0
    return frames, run, Path(run["path"])


def test_three_cycles_are_accounted_for_and_equal_the_twins(bus: BusClient, tmp_path: Path) -> None:
    folder = tmp_path / "emulated"
    folder.mkdir()
    world = str(folder / "world")
    drivers = {0: "cdc_acm", 1: "cdc_acm"}
    bus.plug("cell", "methodscript-cdc", drivers=drivers, world=world, **SAMPLE)
    bus.plug("cam", "u3v", source="twin", optics=SAMPLE | OPTICS | {"world": world})
    frames, run, path = ran(folder, EMULATED)
    assert run["state"] == "done", run
    assert frames["captured"] - frames["idle"] - frames["stored"] - sum(frames["dropped"].values()) <= 3
    assert sum(frames["dropped"].values()) <= 0.01 * frames["captured"], frames["dropped"]  # on a busy machine
    emulated = measured(path)
    _, twin_run, twin_path = ran(tmp_path / "simulated", SIMULATED)
    assert twin_run["state"] == "done", twin_run
    simulated = measured(twin_path)
    print({name: (emulated[name], simulated[name]) for name in ("samples", "frames", "charge_mah")})
    assert set(emulated["cycles"]) == set(simulated["cycles"]) and len(emulated["cycles"]) == 2 * CYCLES
    for key, swing in emulated["cycles"].items():
        other = simulated["cycles"][key]
        both = np.isfinite(swing) & np.isfinite(other)
        assert both.sum() >= 30
        ratio = swing[both] / other[both]
        print(key, "median ratio", np.median(ratio), "spread", np.subtract(*np.percentile(ratio, [75, 25])))
        assert abs(np.median(ratio) - 1.0) < 0.05
        assert np.corrcoef(swing[both], other[both])[0, 1] > 0.98


def measured(path: Path) -> dict[str, Any]:
    """What a run's file says: samples, charge passed one way, and swings by half."""
    with RunReader(path) as reader:
        echem = reader.echem()
        rows = reader.cycles()
        t_s, current = np.array([r["t_s"] for r in echem]), np.array([r["current_ma"] for r in echem])
        steps = np.clip(np.diff(t_s), 0.0, 1.0)
        swings: dict[tuple[int, str], list[float]] = {}
        for row in sorted(rows, key=lambda r: r["particle_id"]):
            swing = row["swing"] if row["swing"] is not None else np.nan
            swings.setdefault((row["cycle"], row["half"]), []).append(swing)
        return {
            "samples": len(t_s),
            "frames": reader.frame_count(),
            "charge_mah": float((np.clip(current[1:], 0, None) * steps).sum() / 3600.0),
            "cycles": {key: np.array(values, float) for key, values in swings.items()},
        }
