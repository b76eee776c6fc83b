"""The whole daemon, in a process of its own, over simulated and replayed instruments."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import psutil
import pytest

from daemon.store.reader import RunReader
from hw.twin.instrument import TwinInstrument
from hw.twin.recording import write_recording
from hw.twin.settings import TwinOptions
from tests.service import SMALL, Service

pytestmark = pytest.mark.timeout(180)

AUTOSTART = """{ name = "demo", baseline_s = 30.0, reference_frames = 10, experiment = { cycles = 50,
  steps = [ "Charge at 4C for 3 minutes or until 4.2 V", "Rest for 1 minute",
  "Discharge at 4C for 3 minutes or until 3.0 V" ] } }"""
MEASURING = '{ name = "still", reference_frames = 10 }'


def _service(tmp_path, autostart):
    # an inline table may not span lines in TOML 1.0
    return Service(tmp_path, SMALL.replace("@AUTOSTART@", "autostart = " + autostart.replace("\n", " ")))


def _running(status, frames=1):
    run = status["run"]
    return run if run and run["state"] == "running" and run["frames"] >= frames else None


def test_an_experiment_is_measured_stored_and_accounted_for(tmp_path):
    with _service(tmp_path, AUTOSTART) as service:
        run = service.wait_for(lambda s: _running(s, 60), 90)
        assert run["particles"] > 20
        service.wait_for(lambda s: s["cell"]["state"] == "running" and abs(s["cell"]["values"]["current_ma"] or 0) > 1)
        png = urllib.request.urlopen(service.url + "/api/v1/frame.png?overlay=state", timeout=10).read()
        assert png.startswith(b"\x89PNG")
        service.post(f"/api/v1/runs/{run['run_id']}/stop")
        service.wait_for(lambda s: s["run"] is None, 60)
        service.wait_for(lambda s: s["cell"]["values"]["mode"] == "off")
        service.wait_for(lambda s: abs(s["frames"]["in_flight"]) <= 2)
        frames = service.get("/api/v1/status")["frames"]
        stored = service.get(f"/api/v1/runs/{run['run_id']}")
        assert service.stop() == 0
    assert stored["state"] == "done"
    assert frames["captured"] - frames["idle"] - frames["stored"] - sum(frames["dropped"].values()) <= 3
    with RunReader(service.state_dir / "runs" / f"{run['run_id']}.db") as reader:
        rows = reader.frames()
        assert len(rows["frame"]) == stored["frames"]
        assert (rows["frame"] == range(len(rows["frame"]))).all()
        assert reader.metadata()["state"] == "done"
        samples = reader.echem()
    assert max(abs(row["current_ma"]) for row in samples) > 1
    assert not [
        process for process in psutil.process_iter(["cmdline"]) if str(tmp_path) in str(process.info["cmdline"])
    ]


def test_events_stream_and_resume(tmp_path):
    with _service(tmp_path, MEASURING) as service:
        service.wait_for(lambda s: _running(s, 10), 90)
        first = subprocess.run(["kill", "-9", str(_engine_of(service))], check=True)
        assert first.returncode == 0
        service.wait_for(lambda s: "engine_restarted" in [event["kind"] for event in _ndjson(service, after=0)], 60)
        lines = _ndjson(service, after=0)
        assert [event["seq"] for event in lines] == sorted(event["seq"] for event in lines)
        assert _ndjson(service, after=lines[0]["seq"]) == lines[1:]


def test_a_killed_engine_is_restarted_and_the_run_goes_on(tmp_path):
    with _service(tmp_path, AUTOSTART) as service:
        run = service.wait_for(lambda s: _running(s, 60), 90)
        os.kill(_engine_of(service), signal.SIGKILL)
        before = service.get("/api/v1/status")
        assert before["cell"]["state"] in ("running", "paused")  # the cell and its record go on meanwhile
        later = service.wait_for(lambda s: _running(s, before["run"]["frames"] + 40), 90)
        assert later["run_id"] == run["run_id"]
        kinds = [event["kind"] for event in service.get(f"/api/v1/runs/{run['run_id']}/events")["events"]]
        assert "engine_restarted" in kinds


def test_a_killed_daemon_loses_at_most_its_last_second_and_says_so(tmp_path):
    service = _service(tmp_path, AUTOSTART)
    service.start()
    run = service.wait_for(lambda s: _running(s, 80), 90)
    engine = _engine_of(service)
    service.kill()
    deadline = time.monotonic() + 10
    while psutil.pid_exists(engine) and psutil.Process(engine).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the engine outlived its daemon"
        time.sleep(0.1)
    with _service(tmp_path, '{ name = "after" }') as again:
        known = again.get(f"/api/v1/runs/{run['run_id']}")
    assert known["state"] == "interrupted"
    with RunReader(service.state_dir / "runs" / f"{run['run_id']}.db") as reader:
        frames = reader.frames()["frame"]
    assert len(frames) >= run["frames"] - 3 * 40  # the last second or two of 40 frames a second
    assert (frames == range(len(frames))).all()


def test_a_recording_replays_through_the_live_daemon(tmp_path):
    recording = tmp_path / "scene.h5"
    write_recording(
        recording, TwinInstrument(TwinOptions(seed=4, particles=30, height_px=300, width_px=400, frame_rate_hz=20)), 120
    )
    toml = f"""
[store]
state_dir = "@STATE@"
[api]
port = 0
[camera]
driver = "replay"
options = {{ path = "{recording}", speed = 1 }}
[potentiostat]
driver = "replay"
options = {{ path = "{recording}", speed = 1 }}
[autostart]
name = "replayed"
reference_frames = 10
"""
    with Service(tmp_path / "service", toml) as service:
        service.wait_for(
            lambda s: any(part["name"] == "camera" and part["state"] == "stopped" for part in s["parts"]), 90
        )
        service.wait_for(lambda s: s["run"] is None, 60)
        (run,) = service.get("/api/v1/runs")["runs"]
    assert run["state"] == "done"
    assert run["frames"] > 20


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("[camera]\ndrivr = 'twin'\n", ["camera.drivr", "camera.driver"]),
        ("[api]\nport = 'eighty'\n", ["api.port"]),
        ("[store]\nstate_dir = '/proc/nowhere'\n", ["/proc/nowhere"]),
        ("[api\n", ["line 1"]),
    ],
)
def test_a_bad_configuration_is_a_sentence_and_exit_code_1(tmp_path, toml, words):
    config = tmp_path / "bad.toml"
    config.write_text(toml)
    done = subprocess.run(
        [sys.executable, "-m", "daemon", "--config", str(config)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


def test_a_port_in_use_is_named(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        config = tmp_path / "c.toml"
        config.write_text(f'[store]\nstate_dir = "{tmp_path}/state"\n[api]\nport = {port}\n')
        done = subprocess.run(
            [sys.executable, "-m", "daemon", "--config", str(config)],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert str(port) in done.stderr
    assert "Traceback" not in done.stderr


def test_a_second_daemon_on_the_same_state_refuses_with_the_firsts_pid(tmp_path):
    with _service(tmp_path, MEASURING) as service:
        second = subprocess.run(
            [sys.executable, "-m", "daemon", "--config", str(service.config)],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert second.returncode == 1
        assert str(service.pid) in second.stderr
        assert service.get("/api/v1/healthz")["status"] == "ok"


def test_unknown_requests_are_problem_documents_and_the_daemon_stays_up(tmp_path):
    with _service(tmp_path, MEASURING) as service:
        for path, code in (("/api/v1/nothing", 404), ("/api/v1/runs/nope", 404), ("/api/v1/events?after=x", 400)):
            with pytest.raises(urllib.error.HTTPError) as caught:
                service.get(path)
            problem = json.load(caught.value)
            assert caught.value.code == problem["status"] == code
            assert problem["detail"] and problem["remedy"] and problem["code"]
        assert service.get("/api/v1/healthz")["status"] == "ok"


def _engine_of(service):
    return service.wait_for(lambda s: next(p for p in s["parts"] if p["name"] == "engine")["values"]["pid"])


def _ndjson(service, after):
    request = urllib.request.Request(
        f"{service.url}/api/v1/events?after={after}&follow=false", headers={"Accept": "application/x-ndjson"}
    )
    with urllib.request.urlopen(request, timeout=10) as reply:
        return [json.loads(line) for line in reply if line.strip()]
