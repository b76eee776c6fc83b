"""The whole daemon keeps its locks on what it writes, whatever it is asked to read, make and copy meanwhile."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from daemon.store.schema import wal_path
from tests.locks import locks_stand, read_from_outside
from tests.service import SMALL, Service

pytestmark = pytest.mark.timeout(300)

MEASURING = 'autostart = { name = "still", reference_frames = 10 }'
FEED = "/api/v1/events"  # without an end


def places(service: Service, run_id: str) -> list[str]:
    """Every place that the daemon says can be read, of what a run without a step has."""
    paths = service.get("/api/v1/openapi.json")["paths"]
    found = [path.replace("{run_id}", run_id) for path, methods in paths.items() if "get" in methods]
    return [path for path in found if not re.search("{|/frame.png", path)]


def read(service: Service, place: str) -> int:
    """The status; what makes a file has made it then."""
    try:
        with urllib.request.urlopen(service.url + place, timeout=60) as answer:
            if answer.status == 202:
                service.finished(json.load(answer), 120)
            elif place != FEED:
                answer.read()
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_the_locks_stand_while_a_run_is_read_exported_backed_up_and_verified(tmp_path):
    share = tmp_path / "share"
    share.mkdir()
    with Service(tmp_path / "instrument", SMALL.replace("@AUTOSTART@", MEASURING)) as service:
        run = service.wait_for(lambda s: s["run"] and s["run"]["frames"] >= 60 and s["run"], 90)
        files = [service.state_dir / "instrument.db", service.state_dir / "runs" / f"{run['run_id']}.db"]
        logs = [wal_path(path).stat().st_ino for path in files]

        def held() -> list[Path]:
            return [path for path in files if locks_stand(path, service.pid)]

        assert held() == files
        asked = places(service, run["run_id"])
        assert {place.rsplit("/", 1)[1] for place in asked} >= {"runs", "traces", "masks", "export", "report", "bundle"}
        for place in asked:
            assert (read(service, place), held()) in ((200, files), (202, files)), place
        for path, body in (("selftest", None), ("backup", {"directory": str(share)})):
            service.finished(service.post(f"/api/v1/{path}", body), 120)
            assert held() == files, path
        command = [sys.executable, "-m", "daemon.ctl", "verify", *map(str, files)]
        assert subprocess.run(command, capture_output=True, timeout=120, check=False).stdout
        assert [read_from_outside(path, "select count(*) > 5 from sqlite_master") for path in files] == ["1", "1"]
        assert held() == files and [wal_path(path).stat().st_ino for path in files] == logs
        service.post(f"/api/v1/runs/{run['run_id']}/stop")
        service.wait_for(lambda s: s["run"] is None, 60)
        assert held() == files[:1] and not wal_path(files[1]).exists()
        assert service.get(f"/api/v1/runs/{run['run_id']}")["state"] == "done"
        assert service.stop() == 0
