from __future__ import annotations

import re
import shutil
import sqlite3

import numpy as np
import pytest

from daemon.errors import StoreError, StoreReason
from daemon.report.build import SECTIONS, report_html, report_run
from daemon.report.material import gather
from tests.daemon.report.synthetic_run import SyntheticRun

TITLES = 17


def quiet(share):
    """Progress nobody watches."""


@pytest.fixture(scope="module")
def again(run_path, tmp_path_factory):
    """The report of a copy, written to a file: (path, progress told)."""
    folder, told = tmp_path_factory.mktemp("again"), []
    copy = shutil.copy(run_path, folder / "elsewhere.db")
    report_run(copy, folder / "r.html", progress=told.append)
    return folder / "r.html", told


def words(document):
    """What a reader reads, without scripts, styles and figures."""
    text = re.sub(r"<(script|style)\b.*?</\1>", "", document, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", text))


def test_every_section_is_there_once(document):
    assert len(SECTIONS) == TITLES == document.count("<h2 id=")
    names = re.findall(r'<h2 id="([^"]+)"', document)
    assert len(set(names)) == len(names)
    assert {f"#{name}" for name in names} == set(re.findall(r"<nav>.*?</nav>", document)[0].split('"')[1::2])


def test_nothing_is_fetched_and_what_comes_from_outside_is_escaped(document):
    body = re.sub(r"<script>.*?</script>", "", document, flags=re.DOTALL)
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', body)
    assert "<script>alert" not in document
    assert "&lt;script&gt;alert" in document
    assert "sendDataToCloud" not in re.sub(r"<script>.*?</script>", "", document, count=1, flags=re.DOTALL)


def test_equal_runs_give_equal_files(document, again):
    assert again[0].read_text(encoding="utf-8") == document


def test_words_hold_the_runs_numbers(document):
    text = words(document)
    assert "12 particles, 400 frames" in text and "4 half-cycles" in text
    assert "1 of 12 particles are inactive" in text
    assert "1 crack in 1 particle" in text
    assert "photometryd 1.2.3" in text
    axes = document.replace("\\u002f", "/")
    assert "Potential / V vs cell" in axes and "Current / mA" in axes and "dQ/dV / mAh/V" in axes


def test_progress_rises_to_one_and_may_stop_the_work(run_path, again, tmp_path):
    told = again[1]
    assert told == sorted(told) and told[-1] == pytest.approx(1.0)

    def stop(share):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        report_run(run_path, tmp_path / "none.html", progress=stop)
    assert not (tmp_path / "none.html").exists()


def test_the_gallery_takes_asked_particles(run_path):
    text = words(report_html(run_path, [3, 7], quiet))
    assert "Particle 3: asked for" in text and "Particle 7: asked for" in text and "Particle 5:" not in text
    with pytest.raises(StoreError) as caught:
        report_html(run_path, [3, 99], quiet)
    assert caught.value.reason is StoreReason.NO_PARTICLE


CASES = {
    "bare": (
        SyntheticRun(cell=False, masks=False, pixel_size_nm=None, events=0),
        [
            "no record of the cell", "No SoC, no cycles", "No half was measured", "No pixel size", "area / px",
            "no sound reference frame", "No picture", "no event",
        ],
    ),
    "not calibrated, edited masks": (
        SyntheticRun(calibrated=False, came_later=3),
        ["No particle is calibrated", "contrast is shown instead", "&lt;operator&gt;"],
    ),
    "one particle": (SyntheticRun(particles=1, calibrated=False), ["too few for a spread"]),
    "no frames": (SyntheticRun(frames=0, cell=False), ["no frame that can be read"]),
    "one frame": (SyntheticRun(frames=1, cell=False), ["1 frame"]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_is_missing_is_said_and_never_fails(case, tmp_path):
    made, expected = CASES[case]
    text = words(report_html(made.write(tmp_path / "r.db"), None, quiet))
    for sentence in expected:
        assert sentence.lower() in text.lower()
    assert "nan" not in re.findall(r"[a-z]+", text.lower())


def test_a_run_without_particles(tmp_path):
    nothing = SyntheticRun(particles=0, frames=0, cell=False, events=0, calibrated=False, masks=False)
    text = words(report_html(nothing.write(tmp_path / "r.db"), None, quiet))
    assert "No particle was found" in text


def test_a_damaged_stretch_and_picture_are_said(tmp_path):
    path = SyntheticRun(particles=4, frames=200).write(tmp_path / "damaged.db")
    with sqlite3.connect(path) as db:
        db.execute(
            "update chunk_columns set blob = x'00' where \"column\" = 'contrast'"
            " and chunk_id = (select max(chunk_id) from chunks)"
        )
        db.execute("update masks set labels = x'00'")
    db.close()
    text = words(report_html(path, None, quiet))
    assert "1 stretch of frames in the file are damaged" in text
    assert "no sound reference frame" in text


def test_a_run_of_which_every_stretch_is_damaged_still_has_a_report(tmp_path):
    path = SyntheticRun(particles=4, frames=200).write(tmp_path / "damaged.db")
    with sqlite3.connect(path) as db:
        db.execute("update chunk_columns set blob = x'00' where \"column\" = 'contrast'")
    db.close()
    assert "of frames in the file are damaged" in words(report_html(path, None, quiet))


def test_what_is_read_is_the_run(run_path):
    material = gather(run_path, None, quiet)
    made = SyntheticRun()
    np.testing.assert_allclose(material.traces.soc[:, 2], made.soc(material.traces.t_s)[:, 2], atol=0.03)
    assert [choice.kind for choice in material.chosen][:2] == ["failed", "cracked"]
    assert material.details.soc.shape[1] == len(material.chosen)
    assert [round(half.passed_mah, 1) for half in material.halves] == [1.0] * 4
