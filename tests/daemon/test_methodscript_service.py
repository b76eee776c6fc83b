"""The whole daemon over the emulated MethodSCRIPT device, whose cell the simulated camera watches."""

from __future__ import annotations

import itertools
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from daemon.events import EventKind
from daemon.store.reader import CatalogueReader, RunReader
from daemon.store.recovery import UNFINISHED
from hw.twin.methodscript.cell import DeviceOptions
from hw.twin.methodscript.pty import PtyDevice
from tests.service import Service

pytestmark = pytest.mark.timeout(240)

SAMPLE = {"seed": 5, "particles": 15, "height_px": 200, "width_px": 260, "capacity_mah": 1.0, "cracks_per_h": 0.0}
SPEED = 60.0
STEPS = [
    "Rest for 1 minute",
    "Charge at 2C for 8 minutes or until 4.2 V",
    "Hold at 4.0 V for 2 minutes",
    "Discharge at 2C for 4 minutes or until 3.2 V",
]
TOML = """
[store]
state_dir = "@STATE@"
[api]
port = 0
[camera]
driver = "twin"
options = { world = "@WORLD@", frame_rate_hz = 20 }
[potentiostat]
driver = "@DRIVER@"
sample_deadline_s = 5.0
[potentiostat.options]
@OPTIONS@
[cell]
capacity_mah = 1.0
[cell.limits]
min_voltage_v = 2.8
max_voltage_v = 4.4
max_current_ma = 10
"""


def a_service(folder: Path, tty: Path | None) -> Service:
    """A small instrument with the emulated potentiostat on `tty`, or with the simulated one."""
    if tty is None:
        options = SAMPLE | {"world": str(folder / "world"), "speed": SPEED}
    else:
        options = {"link": "tty", "device": str(tty), "clock_rate": SPEED, "interval_s": 3.0}
    lines = "\n".join(f"{name} = {json.dumps(value)}" for name, value in options.items())
    driver = "twin" if tty is None else "methodscript"
    return Service(folder, TOML.replace("@DRIVER@", driver).replace("@OPTIONS@", lines))


@pytest.fixture
def emulated(tmp_path: Path) -> Iterator[PtyDevice]:
    folder = tmp_path / "service"
    folder.mkdir()
    options = DeviceOptions(speed=SPEED, world=str(folder / "world"), **SAMPLE)
    with PtyDevice(tmp_path / "tty", options) as device:
        yield device


def run_experiment(service: Service, steps: list[str], limits: dict[str, float] | None = None) -> dict:
    """Start a run and wait for its end; the run."""
    experiment = {"steps": steps, "cycles": 1} | ({"limits": limits} if limits else {})
    recipe = {"name": "test", "reference_frames": 10, "baseline_s": 10.0, "experiment": experiment}
    run_id = service.finished(service.post("/api/v1/runs", recipe), 90)["run_id"]
    return service.get(f"/api/v1/runs/{run_id}")


def read(service: Service, run_id: str) -> tuple[list[dict], np.ndarray]:
    """The cell's rows, and the numbers of the frames."""
    with RunReader(service.state_dir / "runs" / f"{run_id}.db") as reader:
        return reader.echem(), reader.frames()["frame"]


def ended(service: Service, run_id: str) -> dict:
    deadline = time.monotonic() + 120
    while (run := service.get(f"/api/v1/runs/{run_id}"))["state"] in UNFINISHED:
        assert time.monotonic() < deadline, run
        time.sleep(0.2)
    return run


def charge_at(rows: list[dict], kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Charge since the step began, mAh, and voltage of its rows."""
    mine = [row for row in rows if row["step_kind"] == kind]
    passed = np.array([row["charge_mah"] for row in mine])
    return np.abs(passed - passed[0]), np.array([row["voltage_v"] for row in mine])


def difference_v(ours: tuple[np.ndarray, np.ndarray], theirs: tuple[np.ndarray, np.ndarray]) -> float:
    """Largest difference of two voltages over charge; the charge before the first row is unknown, up to two samples."""
    unknown_mah = 2 * 3.0 * 2.0 / 3600
    shared = np.linspace(0.1, 0.9, 100) * min(ours[0][-1], theirs[0][-1])
    at_theirs = np.interp(shared, *theirs)
    shifts = np.linspace(-unknown_mah, unknown_mah, 81)
    return min(float(np.abs(np.interp(shared + shift, *ours) - at_theirs).max()) for shift in shifts)


def test_an_experiment_gives_what_the_simulated_potentiostat_gives(tmp_path, emulated):
    records = {}
    with a_service(tmp_path / "service", emulated.path) as service:
        run = run_experiment(service, STEPS)
        assert ended(service, run["run_id"])["state"] == "done"
        cell = service.get("/api/v1/status")["cell"]["values"]
        counts = emulated.state()["counts"]
        records["emulated"] = read(service, run["run_id"])
        assert cell["host_loss"] == "continue-to-end" and cell["host_loss_bound_s"] == 86400
        assert cell["device_limits"] and cell["samples_rejected"] == 0
        # all packages but the probe's and the last words of scripts that were ended; a few are under way
        assert 0 <= counts["packets"] - counts["last words"] - 1 - cell["samples"] <= 10
        assert service.stop() == 0
    assert not emulated.state()["cell_on"]
    with a_service(tmp_path / "twin", None) as service:
        run = run_experiment(service, STEPS)
        assert ended(service, run["run_id"])["state"] == "done"
        records["twin"] = read(service, run["run_id"])
    for rows, frames in records.values():
        assert len(frames) > 100
        times = [row["t_s"] for row in rows]
        assert all(later > earlier for earlier, later in itertools.pairwise(times))
        assert [kind for kind, _ in itertools.groupby(row["step_kind"] for row in rows if row["cycle"] == 0)] == [
            "rest", "charge", "hold", "discharge",
        ]  # fmt: skip
    for kind in ("charge", "discharge"):
        ours, theirs = (charge_at(records[name][0], kind) for name in ("emulated", "twin"))
        # a tenth of a second to load a script is six here, and counts as time of the step
        assert ours[0][-1] == pytest.approx(theirs[0][-1], abs=9 * 2.0 / 3600)
        assert difference_v(ours, theirs) < 1.5e-3
    held = [row for row in records["emulated"][0] if row["step_kind"] == "hold"]
    assert np.median([abs(row["voltage_v"] - 4.0) for row in held]) < 1e-3


def test_a_limit_is_the_devices_own_and_the_record_says_so(tmp_path, emulated):
    with a_service(tmp_path / "service", emulated.path) as service:
        run = run_experiment(service, ["Charge at 2C for 1 hour"], {"max_voltage_v": 4.0, "max_current_ma": 5.0})
        known = ended(service, run["run_id"])
        assert not emulated.state()["cell_on"]
        assert known["reason"] == "cell.limit"
        assert "the potentiostat switched off by itself: max_voltage_v = 4 was passed" in known["detail"]
        events = service.get(f"/api/v1/runs/{run['run_id']}/events")["events"]
        (event,) = [event for event in events if event["kind"] == "cell_limit"]
        assert 4.0 <= event["magnitude"] < 4.01
        rows, _ = read(service, run["run_id"])
    driven = [row for row in rows if row["step_kind"] == "charge" and row["current_ma"] > 1]
    assert [row["voltage_v"] >= 4.0 for row in driven].count(True) == 1 and driven[-1]["voltage_v"] >= 4.0


def drive_and_kill(service: Service, step: str) -> None:
    """Start `step`, wait until it drives, then SIGKILL."""
    try:
        run_experiment(service, [step])
        service.wait_for(lambda s: s["cell"]["values"]["mode"] == "galvanostatic")
    finally:
        service.kill()


def test_a_killed_daemon_finds_the_cell_on_or_the_script_ends_by_itself(tmp_path, emulated):
    service = a_service(tmp_path / "service", emulated.path)
    service.start()
    drive_and_kill(service, "Charge at 1C for 50 minutes")
    assert emulated.state()["cell_on"] and emulated.state()["running"]

    again = a_service(tmp_path / "service", emulated.path)
    again.start()
    try:
        status = again.wait_for(lambda s: s["cell"]["state"] == "tripped" and s)
        (line,) = [part for part in status["parts"] if part["name"] == "cell"]
        assert line["reason"] == "cell.found_on"
        assert not emulated.state()["cell_on"]
        again.wait_for(lambda s: s["cell"]["values"]["mode"] == "off")
    except BaseException:
        again.kill()
        raise
    drive_and_kill(again, "Charge at 1C for 4 minutes")
    deadline = time.monotonic() + (4 * 60 * 1.01 + 20 * 3.0) / SPEED + 3
    while emulated.state()["cell_on"]:
        assert time.monotonic() < deadline, "the cell stayed on"
        time.sleep(0.05)
    assert not emulated.state()["running"]


def test_a_daemon_that_cannot_start_switches_off_what_its_predecessor_left_on(tmp_path):
    """Here the API's port is taken: the store is open by then, the cell is not."""
    with PtyDevice(tmp_path / "tty", DeviceOptions(**SAMPLE)) as device, socket.socket() as taken:
        device.inject("dirty")
        assert device.state()["cell_on"]
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        options = f'link = "tty"\ndevice = "{tmp_path}/tty"'
        port = f"port = {taken.getsockname()[1]}"
        lines = TOML.replace("@DRIVER@", "methodscript").replace("@OPTIONS@", options).replace("port = 0", port)
        config = tmp_path / "c.toml"
        config.write_text(lines.replace("@STATE@", f"{tmp_path}/state").replace("@WORLD@", f"{tmp_path}/world"))
        done = subprocess.run(
            [sys.executable, "-m", "daemon", "--config", str(config)],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 1 and "api.port_in_use" in done.stderr
        assert not device.state()["cell_on"], done.stderr
    with CatalogueReader(tmp_path / "state" / "instrument.db") as catalogue:
        (event,) = [event for event in catalogue.events() if event.kind is EventKind.CELL_LOST]
    assert "found on" in event.detail
