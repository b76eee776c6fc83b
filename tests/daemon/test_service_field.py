"""The whole daemon as a field engineer meets it: self-test at the start, a first fault, bundles alive and dead."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from daemon.diagnostics.metrics import Metrics
from daemon.diagnostics.snapshot import snapshot_files
from tests.packaging.test_monitoring import PROMTOOL, promtool
from tests.service import SMALL, Service

SLACK_S = 90.0  # compiling kernels, or a loaded machine


def ctl(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "daemon.ctl", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=SLACK_S, check=False)


def listed(bundle: Path) -> tuple[set[str], set[str]]:
    """Names of what is in a bundle, and of what its manifest calls missing."""
    with tarfile.open(bundle) as archive:
        member = archive.extractfile("photometryd-bundle/manifest.json")
        assert member is not None
        manifest = json.load(member)
    return {entry["file"] for entry in manifest["files"]}, {entry["file"] for entry in manifest["missing"]}


@pytest.mark.timeout(300)
def test_a_field_engineer_finds_what_happened(tmp_path: Path) -> None:
    toml = SMALL.replace("@AUTOSTART@", '[autostart]\nname = "night"')
    with Service(tmp_path, toml) as service:
        status = service.wait_for(lambda status: status if status.get("selftest") else None, SLACK_S)
        assert status["selftest"]["outcome"] in ("pass", "warn", "fail")
        assert "state_directory" not in status["selftest"]["failed"]
        service.wait_for(lambda status: status["measuring"], SLACK_S)
        with urllib.request.urlopen(f"{service.url}/api/v1/metrics", timeout=SLACK_S) as reply:
            scraped = reply.read()
        families = {family.name for family in text_string_to_metric_families(scraped.decode())}
        assert families == {name.removesuffix("_total") for name, *_ in Metrics().documentation()}
        assert b'instrument_selftest_severity{check="state_directory"} 0.0' in scraped
        assert PROMTOOL is None or promtool("check", "metrics", given=scraped).strip() == ""

        (engine,) = [part for part in status["parts"] if part["name"] == "engine"]
        os.kill(engine["values"]["pid"], signal.SIGKILL)
        deadline_s = time.monotonic() + SLACK_S
        while not (snapshots := snapshot_files(service.state_dir)):
            assert time.monotonic() < deadline_s
            time.sleep(0.1)
        assert snapshots[0].name.endswith("-engine.died.tar.gz")
        assert "engine.died" in [fault["code"] for fault in service.get("/api/v1/status")["faults"]]

        done = ctl("--url", service.url, "bundle", "--out", tmp_path / "alive.tar.gz")
        assert (done.returncode, done.stderr) == (0, "")
        logs = ctl("--url", service.url, "logs", "--level", "error", "--since", "10m")
        assert "the camera engine ended (signal 9)" in logs.stdout
        service.kill()
        where = ("--url", service.url)
        done = ctl(*where, "bundle", "--config", service.config, "--out", tmp_path / "dead.tar.gz")
        assert done.returncode == 0, done.stderr
        logs = ctl(*where, "logs", "--level", "error", "--config", service.config)
        assert "the camera engine ended (signal 9)" in logs.stdout
    alive, alive_missing = listed(tmp_path / "alive.tar.gz")
    dead, dead_missing = listed(tmp_path / "dead.tar.gz")
    assert alive | alive_missing == dead | dead_missing
    assert {"status.json", "metrics.txt", "selftest-daemon.json"} <= alive & dead_missing
    assert f"snapshots/{snapshots[0].name}" in alive & dead
