"""The whole daemon over an emulated source-measure unit: experiments, dead hosts, limits, pulled cables."""

from __future__ import annotations

import contextlib
import json
import time
import urllib.request
from collections.abc import Iterator

import numpy as np
import pytest

from daemon.store.reader import RunReader
from hw.potentiostat.contract import CellMode
from tests.service import Service

pytestmark = pytest.mark.timeout(300)

SAMPLE = {
    "seed": 5, "particles": 40, "height_px": 300, "width_px": 400, "capacity_mah": 0.5, "initial_soc": 0.4,
    "cracks_per_h": 0.0,
}  # fmt: skip
SPEED = 20.0  # the cell ages so much faster than clocks run, in both instruments
NOISE_V = 5e-5
HEAD = """
[store]
state_dir = "@STATE@"
[api]
port = 0
[camera]
driver = "twin"
[camera.options]
world = "@WORLD@"
frame_rate_hz = 20
[cell]
capacity_mah = 0.5
[cell.limits]
min_voltage_v = 2.8
max_voltage_v = 4.4
max_current_ma = 10
[potentiostat]
"""
KEITHLEY = """driver = "keithley"
[potentiostat.options]
sample_rate_hz = 20
host_loss_after_s = @LOSS@
"""
TWIN = f"""driver = "twin"
[potentiostat.options]
world = "@WORLD@"
speed = {SPEED}
""" + "\n".join(f"{name} = {value}" for name, value in SAMPLE.items())
LONG = {"steps": ["Charge at 1 mA for 10 minutes"]}


@pytest.fixture
def unit(bus, tmp_path):
    bus.plug("smu", "smu", world=str(tmp_path / "world"), speed=SPEED, **SAMPLE)
    return bus


@contextlib.contextmanager
def service_of(tmp_path, host_loss_after_s=5.0) -> Iterator[Service]:
    """Not started; ended after it, whatever happened."""
    service = Service(tmp_path, HEAD + KEITHLEY.replace("@LOSS@", str(host_loss_after_s)))
    try:
        yield service
    finally:
        service.stop()


def restart(service: Service) -> None:
    """With another port: what the one before it said does not count."""
    service.lines = []
    service.start()


def events(service: Service) -> list[dict]:
    request = urllib.request.Request(
        f"{service.url}/api/v1/events?after=0&follow=false", headers={"Accept": "application/x-ndjson"}
    )
    with urllib.request.urlopen(request, timeout=10) as reply:
        return [json.loads(line) for line in reply if line.strip()]


def lost(service: Service) -> list[dict]:
    return [event for event in events(service) if event["kind"] == "cell_lost"]


def sampled(service: Service):
    """The status of the cell once it is read and off."""
    return service.wait_for(lambda s: s["cell"]["values"].get("mode") == "off" and s["cell"])


def charging(service: Service, experiment=LONG) -> None:
    sampled(service)
    service.post("/api/v1/cell/experiment", experiment)
    service.wait_for(lambda s: s["cell"]["state"] == "running" and s["cell"]["values"]["current_ma"] > 0.5)


def until_open(unit, within_s: float) -> float:
    """How long until the unit drives nothing."""
    began = time.monotonic()
    while time.monotonic() - began < within_s:
        state = unit.state("smu")
        if not state["output"] and not state["flowing"]:
            return time.monotonic() - began
        time.sleep(0.02)
    raise AssertionError(f"it still drives: {state}")


def cell_part(service: Service) -> dict:
    """The cell among the parts of the status: with reason and remedy."""
    (part,) = [part for part in service.get("/api/v1/status")["parts"] if part["name"] == "cell"]
    return part


def driven(state: dict) -> bool:
    """Whether current flows; the voltmeter's 0 A is none."""
    return state["output"] and abs(state["current_ma"]) > 1e-3


# -- an experiment as asked ------------------------------------------------------------


def recipe(pace: float) -> dict:
    """The same for a cell that ages `pace` times as fast as its potentiostat's clock runs."""
    steps = ["Charge at 2 mA until 4.0 V", "Hold at 4.0 V until 1 mA", "Discharge at 2 mA until 3.7 V"]
    return {
        "name": "short", "reference_frames": 10, "baseline_s": 1.0,
        "experiment": {"steps": [*steps, f"Rest for {100 / pace:g} s"]},
    }  # fmt: skip


def run(service: Service, pace: float) -> tuple[list[dict], dict, dict]:
    """Cell samples of a whole run, the run as it ended, and the cell's values."""
    sampled(service)
    started = service.post("/api/v1/runs", recipe(pace))
    service.finished(started, 120)
    run_id = started.get("run_id") or service.get("/api/v1/runs")["runs"][0]["run_id"]
    service.wait_for(lambda s: s["run"] is None, 120)
    cell = service.get("/api/v1/status")["cell"]
    stored = service.get(f"/api/v1/runs/{run_id}")
    with RunReader(service.state_dir / "runs" / f"{run_id}.db") as reader:
        return reader.echem(), stored, cell


def curves(samples: list[dict], pace: float) -> list[dict]:
    """Each step's time, charge (in the cell's own seconds) and voltage over charge."""
    found = []
    for step in range(4):
        rows = [row for row in samples if row["step"] == step]
        t_s = pace * np.array([row["t_s"] for row in rows])
        current_ma = np.array([row["current_ma"] for row in rows])
        parts_mah = np.diff(t_s) * 0.5 * (current_ma[1:] + current_ma[:-1]) / 3600
        found.append({
            "t_s": t_s - t_s[0], "mah": np.concatenate([[0.0], np.cumsum(parts_mah)]),
            "voltage_v": np.array([row["voltage_v"] for row in rows]), "current_ma": current_ma,
        })  # fmt: skip
    return found


@pytest.mark.slow
def test_an_experiment_ends_as_asked_and_as_it_does_on_the_twin(unit, tmp_path):
    before = unit.state("smu")["soc"]
    with service_of(tmp_path) as service:
        service.start()
        samples, stored, cell = run(service, SPEED)
        after = unit.state("smu")
        assert service.stop() == 0
    assert stored["state"] == "done" and not stored["reason"], stored
    assert cell["state"] in ("idle", "off") and cell["values"]["samples_rejected"] == 0
    assert not driven(after) and unit.state("smu")["output"] is False
    assert unit.state("smu")["counts"].get("faults of the model", 0) == 0
    on = [row for row in samples if row["step"] >= 0]
    assert [row["step"] for row in on] == sorted(row["step"] for row in on) and on[-1]["step"] == 3
    gaps_s = np.diff([row["t_s"] for row in on])
    print("samples", len(on), "longest gap", gaps_s.max(), "median", np.median(gaps_s))
    assert (gaps_s > 0).all() and gaps_s.max() < 1.0 and np.median(gaps_s) == pytest.approx(0.05, rel=0.2)
    t_s = np.array([row["t_s"] for row in samples])
    current_ma = np.array([row["current_ma"] for row in samples])
    counted_mah = SPEED * np.trapezoid(current_ma, t_s) / 3600 if hasattr(np, "trapezoid") else np.nan
    passed_mah = (after["soc"] - before) * SAMPLE["capacity_mah"]
    throughput_mah = SPEED * np.trapezoid(np.abs(current_ma), t_s) / 3600
    print("charge counted", counted_mah, "passed", passed_mah, "throughput", throughput_mah)
    assert counted_mah == pytest.approx(passed_mah, abs=0.01 * throughput_mah)
    with Service(tmp_path / "twin", HEAD + TWIN) as service:
        twin, stored, _ = run(service, 1.0)
    assert stored["state"] == "done"
    compare(curves(samples, SPEED), curves(twin, 1.0))


def compare(ours: list[dict], theirs: list[dict]) -> None:
    for step, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        print(step, "time", one["t_s"][-1], other["t_s"][-1], "charge", one["mah"][-1], other["mah"][-1])
        if step in (0, 2):
            along = np.linspace(0.1, 0.9, 200) * other["mah"][-1]
            sign = np.sign(along[0])
            mine, its = (np.interp(sign * along, sign * c["mah"], c["voltage_v"]) for c in (one, other))
            print("  voltage differs by", np.abs(mine - its).max(), np.median(np.abs(mine - its)))
            # a reading more or less at the beginning is 1 mV
            assert np.median(np.abs(mine - its)) < 3e-3 and np.abs(mine - its).max() < 0.01
        if step < 3:
            assert one["t_s"][-1] == pytest.approx(other["t_s"][-1], abs=8.0)
            assert one["mah"][-1] == pytest.approx(other["mah"][-1], abs=2 * 8.0 / 3600)


# -- a dead host ------------------------------------------------------------


@pytest.mark.slow
def test_a_killed_daemon_leaves_a_cell_that_opens_by_itself_and_is_found_off(unit, tmp_path):
    took_s = []
    with service_of(tmp_path) as service:
        for k in range(5):
            restart(service)
            cell = sampled(service)
            assert cell["state"] == "off", cell  # nothing to report: the unit had opened
            charging(service)
            time.sleep(0.37 * k)
            service.kill()
            assert driven(unit.state("smu"))
            took_s.append(until_open(unit, 6.0))
        print("open after", took_s)
        assert max(took_s) <= 5.2
        restart(service)
        assert sampled(service)["state"] == "off"


def test_a_restarted_daemon_finds_the_cell_on_and_switches_it_off(unit, tmp_path):
    with service_of(tmp_path, 120.0) as service:
        service.start()
        for k in range(3):
            charging(service)
            service.kill()
            assert driven(unit.state("smu"))
            restart(service)
            assert sampled(service)["state"] == "tripped"
            assert cell_part(service)["reason"] == "cell.found_on"
            assert not driven(unit.state("smu"))
            service.wait_for(lambda _, k=k: len(lost(service)) == k + 1)
            assert "found on" in json.dumps(lost(service)[-1])


def test_a_daemon_killed_at_rest_leaves_a_voltmeter_that_counts_as_off(unit, tmp_path):
    with service_of(tmp_path) as service:
        service.start()
        sampled(service)
        service.kill()
        state = unit.state("smu")
        assert state["output"] and abs(state["current_ma"]) < 1e-4
        restart(service)
        assert sampled(service)["state"] == "off"


# -- limits ------------------------------------------------------------


def test_a_limit_that_is_met_opens_the_circuit_and_is_told_with_who_acted(unit, tmp_path):
    with service_of(tmp_path) as service:
        service.start()
        rest_v = sampled(service)["values"]["voltage_v"]
        limit_v = rest_v + 0.12
        charging(service, LONG | {"steps": ["Charge at 2 mA for 10 minutes"], "limits": {"max_voltage_v": limit_v}})
        cell = service.wait_for(lambda s: s["cell"]["state"] == "tripped" and s["cell"], 60)
        assert not driven(unit.state("smu"))
        (event,) = [event for event in events(service) if event["kind"] == "cell_limit"]
        print(cell["detail"], event)
        assert cell["values"]["off_confirmed"] and cell["values"]["device_limits"]
        # the unit holds the voltage, the daemon opens: no reading is beyond the limit by more than its noise
        assert event["magnitude"] == pytest.approx(limit_v, abs=5 * NOISE_V)
        assert "max_voltage_v" in json.dumps(event)


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [("over_voltage", "cell_limit", "over-voltage protection"), ("panel_off", "cell_lost", "front panel")],
)
def test_a_unit_that_opens_by_itself_is_told_with_why(unit, tmp_path, fault, kind, words):
    with service_of(tmp_path) as service:
        service.start()
        charging(service)
        unit.inject("smu", fault)
        service.wait_for(lambda s: s["cell"]["state"] in ("tripped", "lost"))
        found = service.wait_for(lambda _: [event for event in events(service) if event["kind"] == kind])
        assert words in json.dumps(found[-1])
        cell = sampled(service)
        assert cell["state"] == "tripped" and not driven(unit.state("smu"))


# -- the cable ------------------------------------------------------------


def test_a_pulled_cable_ends_in_a_cell_that_is_off_and_said_to_be(unit, tmp_path):
    with service_of(tmp_path) as service:
        service.start()
        charging(service)
        unit.unplug("smu")
        service.wait_for(lambda s: s["cell"]["state"] == "lost" and s["cell"])
        part = cell_part(service)
        print(part["reason"], part["detail"])
        assert part["reason"] in ("cell.in_doubt", "cell.unplugged", "cell.not_found"), part
        assert driven(unit.state("smu"))  # nobody can reach it; it has its own clock
        until_open(unit, 6.0)
        unit.plug("smu")
        cell = service.wait_for(lambda s: s["cell"]["values"].get("mode") == CellMode.OFF and s["cell"], 60)
        assert cell["state"] == "tripped" and cell["values"]["off_confirmed"], cell
        assert "cell_lost" in [event["kind"] for event in events(service)]
        assert not driven(unit.state("smu"))
        service.post("/api/v1/cell/off")
        charging(service)  # all is as before


def test_a_cable_that_comes_back_at_once_finds_the_cell_on_and_opens_it(unit, tmp_path):
    with service_of(tmp_path, 120.0) as service:
        service.start()
        charging(service)
        unit.unplug("smu")
        service.wait_for(lambda s: s["cell"]["state"] == "lost")
        unit.plug("smu")
        service.wait_for(lambda s: s["cell"]["state"] == "tripped", 60)
        assert not driven(unit.state("smu"))
