"""The whole daemon and its state directory."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.service import SMALL, Service

pytestmark = pytest.mark.timeout(180)


def test_a_second_daemon_on_one_state_directory_refuses_and_names_the_first(tmp_path):
    with Service(tmp_path, SMALL.replace("@AUTOSTART@", "")) as service:
        command = [sys.executable, "-m", "daemon", "--config", str(service.config)]
        second = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert second.returncode == 1
        assert f"is in use by process {service.pid}" in second.stderr and "Traceback" not in second.stderr
        assert service.get("/api/v1/status")["parts"]
        salvage = [sys.executable, "-m", "daemon.ctl", "salvage", str(service.state_dir / "instrument.db")]
        refused = subprocess.run(
            [*salvage, "--out", str(tmp_path / "out.db")], capture_output=True, text=True, timeout=60, check=False
        )
        assert refused.returncode == 1 and f"process {service.pid}" in refused.stderr
