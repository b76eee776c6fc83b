"""Masks edited in a running daemon, over the simulated camera."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error

import numpy as np
import pyarrow.parquet
import pytest

from daemon.store.export import export_run
from daemon.store.reader import RunReader
from tests.service import SMALL, Service

pytestmark = pytest.mark.timeout(180)

# slow: the twin's particles stand still but for noise while the cell is off
STILL = SMALL.replace("@AUTOSTART@", 'autostart = { name = "edited", reference_frames = 20 }')


def _measured(status, frames):
    run, science = status["run"], status["science"]
    return run if run and run["frames"] >= frames and science.get("baseline_known") else None


def test_masks_are_edited_between_two_frames_and_every_version_is_kept(tmp_path):
    with Service(tmp_path, STILL) as service:
        run = service.wait_for(lambda s: _measured(s, 60), 90)
        path = f"/api/v1/runs/{run['run_id']}/masks"
        first = service.get(f"{path}?version=1")
        outlines = {each["particle_id"]: each["outline_px"] for each in first["outlines"]}
        gone, replaced = first["outlines"][3]["particle_id"], first["outlines"][7]["particle_id"]
        edits = [
            {"action": "remove", "particle_id": gone},
            {"action": "replace", "particle_id": replaced, "outline_px": outlines[replaced]},
        ]
        second = service.finished(service.patch(path, {"edits": edits, "version": 1}))
        run = service.wait_for(lambda s: _measured(s, second["from_frame"] + 80))
        again = {"edits": [{"action": "add", "outline_px": outlines[gone]}]}
        third = service.finished(service.patch(path, again))
        run = service.wait_for(lambda s: _measured(s, third["from_frame"] + 80))
        with pytest.raises(urllib.error.HTTPError) as stale:
            service.patch(path, again | {"version": 2})
        assert stale.value.code == 409 and json.load(stale.value)["code"] == "masks.stale"
        os.kill(
            service.wait_for(lambda s: next(p for p in s["parts"] if p["name"] == "engine")["values"]["pid"]),
            signal.SIGKILL,
        )
        service.wait_for(lambda s: _measured(s, run["frames"] + 120), 60)
        shown = subprocess.run(
            [sys.executable, "-m", "daemon.ctl", "--url", service.url, "masks"],
            capture_output=True, text=True, timeout=30, check=True,
        )  # fmt: skip
        assert "remove" in shown.stdout and f"replace {replaced}" in shown.stdout
        service.post(f"/api/v1/runs/{run['run_id']}/stop")
        service.wait_for(lambda s: s["run"] is None, 60)
        service.wait_for(lambda s: abs(s["frames"]["in_flight"]) <= 2)
        frames = service.get("/api/v1/status")["frames"]
        stored = service.get(f"/api/v1/runs/{run['run_id']}")
        assert service.stop() == 0
    lost = sum(frames["dropped"].values())
    assert frames["captured"] - frames["idle"] - frames["stored"] - lost <= 3
    file = service.state_dir / "runs" / f"{run['run_id']}.db"
    count = len(first["outlines"])
    _check_store(file, count, (second, third), gone, replaced)
    assert stored["particles"] == count + 2
    _check_export(file, tmp_path / "out", count + 2, second["from_frame"], third)


def _check_store(file, count, versions, gone, replaced):
    second, third = versions
    with RunReader(file) as reader:
        rows, columns = reader.particle_columns(["contrast"])
        known = reader.mask_versions()
        particles = reader.particles()
        widths = [
            (chunk.frame_columns["frame"], chunk.particle_columns["contrast"].shape[1])
            for chunk in reader.iter_chunks(columns=["contrast"])
        ]
    number = rows["frame"]
    np.testing.assert_array_equal(number, range(len(number)))
    assert [(each.version, each.from_frame) for each in known] == [
        (1, 0), (2, second["from_frame"]), (3, third["from_frame"])
    ]  # fmt: skip
    assert known[1].actor.startswith("local:") and known[1].particles == count - 1 and known[2].particles == count
    new, again = known[1].edits[1]["new_particle_id"], known[2].edits[0]["new_particle_id"]
    by_id = {row["particle_id"]: row for row in particles}
    assert by_id[gone]["state"] == by_id[replaced]["state"] == "lost"
    assert by_id[new]["parent_id"] == replaced and by_id[again]["parent_id"] is None
    assert by_id[new]["area_px"] == by_id[replaced]["area_px"] and by_id[again]["brightness_e"] > 0
    for frames, width in widths:
        versions_of = np.searchsorted([each.from_frame for each in known], frames, side="right")
        assert len(set(versions_of.tolist())) == 1, "a chunk holds frames of two versions"
        assert width == {1: count, 2: count + 1, 3: count + 2}[int(versions_of[0])]
    contrast = columns["contrast"]
    index = {row["particle_id"]: row["particle_index"] for row in particles}
    before, after = number < second["from_frame"], number >= second["from_frame"]
    assert np.isfinite(contrast[before][:, :count]).all()
    assert np.isnan(contrast[after][:, [index[gone], index[replaced]]]).all()
    # the baseline of a second, at 40 frames a second of the camera and 60 seconds of its clock each, is over at once
    for particle, begin in ((new, second["from_frame"]), (again, third["from_frame"])):
        own = contrast[:, index[particle]]
        assert np.isnan(own[number < begin]).all()
        assert np.isfinite(own[number >= begin + 70]).all()
    kept = [i for i in range(count) if i not in (index[gone], index[replaced])]
    cuts = second["from_frame"], third["from_frame"]
    _check_no_step(contrast[:, kept], cuts)
    blocks = rows["block_id"]
    assert [blocks[cut] - blocks[cut - 1] for cut in cuts] == [1, 1], "a frame was lost between two versions"


def _check_no_step(contrast, cuts):
    """Means over the 30 frames either side of a cut differ as much as those either side of any other frame do."""

    def step(here):
        change = contrast[here : here + 30].mean(axis=0) - contrast[here - 30 : here].mean(axis=0)
        return float(np.sqrt(np.mean(change**2)))

    others = [k for k in range(30, len(contrast) - 30, 10) if min(abs(k - cut) for cut in cuts) > 30]
    largest = max(step(k) for k in others)
    assert len(others) > 10 and largest < 3e-3
    assert all(step(cut) < 1.5 * largest for cut in cuts)


def _check_export(file, out, count, second, third):
    export_run(file, out)
    table = pyarrow.parquet.read_table(out / "traces.parquet").to_pydict()
    particles = pyarrow.parquet.read_table(out / "particles.parquet").to_pydict()
    assert len(particles["particle_id"]) == count
    frame, contrast = np.array(table["frame"]), np.array(table["contrast"], float)
    newest = third["edits"][0]["new_particle_id"]
    own = np.array(table["particle_id"]) == newest
    assert np.isnan(contrast[own & (frame < third["from_frame"])]).all()
    assert np.isfinite(contrast[own & (frame > third["from_frame"] + 70)]).all()
    assert (np.bincount(frame) == count).all()
