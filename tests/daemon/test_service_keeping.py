"""The whole daemon: a backup beside a run, what it says of its disk, and letting a run go."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

import pytest

from daemon.store.manifest import read_manifest
from daemon.store.reader import RunReader
from daemon.store.restore import restore
from tests.service import SMALL, Service

pytestmark = pytest.mark.timeout(180)

MEASURING = 'autostart = { name = "still", reference_frames = 10 }'


def delete(service, path):
    request = urllib.request.Request(service.url + path, method="DELETE")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_a_run_is_backed_up_while_it_is_measured_and_may_go_afterwards(tmp_path):
    share = tmp_path / "share"
    share.mkdir()
    with Service(tmp_path / "instrument", SMALL.replace("@AUTOSTART@", MEASURING)) as service:
        run = service.wait_for(lambda s: s["run"] and s["run"]["frames"] >= 60 and s["run"], 90)
        place = f"/api/v1/runs/{run['run_id']}"
        result = service.finished(service.post("/api/v1/backup", {"directory": str(share)}))
        assert (result["copied"], result["whole_runs"], result["damaged"]) == (2, [], [])
        assert delete(service, place + "?unexported=true")[1]["code"] == "run.busy"
        during = service.get("/api/v1/status")
        assert during["run"]["frames"] > run["frames"] and during["frames"]["dropped"] == {}
        assert during["disk"]["free_mb"] > 0 and during["disk"]["full_in_h"] is None  # not yet known
        entry = read_manifest(share).entry(f"runs/{run['run_id']}.db")
        with RunReader(share / entry.stored_as) as reader:
            assert reader.frame_count() > 0 and reader.corrupt_chunks == 0
        service.post(f"{place}/stop")
        service.wait_for(lambda s: s["run"] is None, 60)
        assert delete(service, place)[1]["code"] == "run.not_exported"
        result = service.finished(service.post("/api/v1/backup", {"directory": str(share)}))
        assert result["whole_runs"] == [run["run_id"]] and service.get(place)["exported_utc"]
        status, answer = delete(service, place)
        assert (status, answer["state"]) == (200, "deleted")
        assert not (service.state_dir / "runs" / f"{run['run_id']}.db").exists()
        parts = {part["name"]: part["state"] for part in service.get("/api/v1/status")["parts"]}
        assert parts["maintenance"] == "ready"
        assert service.stop() == 0
    restore(share, tmp_path / "again" / "state")
    with Service(tmp_path / "again", SMALL.replace("@AUTOSTART@", "")) as service:
        assert service.get(place)["state"] == "done"
        assert len(service.get(f"{place}/particles")["particles"]) == run["particles"]
        assert service.stop() == 0
    with RunReader(tmp_path / "again" / "state" / "runs" / f"{run['run_id']}.db") as reader:
        assert reader.frame_count() >= during["run"]["frames"] and reader.metadata()["state"] == "done"
