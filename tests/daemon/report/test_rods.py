"""The report's section on gradients: which rods are shown, their series and axes, and why others have none."""

from dataclasses import replace

import numpy as np
import pytest

from daemon.insight.run_data import RunData
from daemon.report.build import report_html
from daemon.report.gradients import section
from daemon.report.material import gather
from daemon.report.page import Html, Row
from daemon.report.rods import rods_of
from daemon.store.reader import RunReader
from tests.daemon.photometry.test_axial import CURVE
from tests.daemon.store.helpers import WAIT_S, frames, open_run, particle_rows
from tests.daemon.store.test_axial import axis, blocks

WHYS = {11: "round", 13: "no_calibration", 16: "short", 17: "not_measured"}
STEEP = 2
"""Index of the rod with the largest gradient."""


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    with open_run(tmp_path_factory.mktemp("rods")) as (writer, path):
        writer.put_particles(particle_rows(8))
        writer.put_axes([axis(11 + k, WHYS.get(11 + k, "")) for k in range(8)])
        writer.put_calibrations([{"particle_id": 11 + k, **CURVE} for k in range(8) if k != 6])
        for first in range(0, 40, 4):
            given = blocks(first, 8)
            given["bins"][:, 1:] += 0.0125  # a contrast of 0.1: half way
            for index, tilt in ((1, 0.001), (3, 0.002), (4, -0.0005)):
                given["bins"][:, index, :4] -= tilt
                given["bins"][:, index, 4:] += tilt
            writer.put_axial([given])
        for first in range(0, 1000, 100):
            frame, particle = frames(first, 100, 8)
            particle["contrast"] += np.float32(0.1)
            writer.put_chunk(frame, particle, wait_s=WAIT_S)
    return path


def test_the_largest_rods_are_shown_first(path):
    run = RunData.load(path)
    with RunReader(path) as reader:
        rods = rods_of(run, reader, reader.axes())
    assert [rod.particle_id for rod in rods][:2] == [14, 12]
    assert all(rod.particle_id not in WHYS for rod in rods)
    steep = rods[0]
    # contrasts of the end quarters -+0.016 about 0.1, over a curve of 0.2
    assert np.median(steep.axial) == pytest.approx(2 * 0.002 / 0.125 / 0.2, rel=0.15)
    assert np.isfinite(steep.axial_sigma).all()
    assert len(steep.radial_t_s) == len(steep.radial) == len(steep.shift_px)
    assert np.isfinite(steep.shift_sigma_px).any()


def test_the_section_says_why_and_draws_the_axis(path):
    material = gather(path, None, lambda share: None)
    parts = section(material).parts
    assert "4 rods of 8 particles have an axial gradient" in parts[0]
    assert "too round for an axis (1)" in parts[0]
    rows = [part for part in parts if isinstance(part, Row)]
    assert len(rows) == len(material.rods)
    picture = rows[0].parts[0]
    assert isinstance(picture, Html)
    assert 'class="axis"' in picture.text
    assert {trace.name for trace in rows[0].parts[1].data} >= {"axial", "radial", "shift"}
    html = report_html(path, None, lambda share: None)
    assert 'id="gradients"' in html


def test_files_without_axes_or_rods(path):
    material = gather(path, None, lambda share: None)
    older = section(replace(material, axes=[], rods=[]))
    assert older.parts == ["The run's file does not tell the particles' axes."]
    none = [row | {"axial_unknown_why": "round"} for row in material.axes]
    assert len(section(replace(material, axes=none, rods=[])).parts) == 1
    run = RunData.load(path)
    with RunReader(path) as reader:
        assert rods_of(run, reader, none) == rods_of(run, reader, []) == []
