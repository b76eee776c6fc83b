"""What `report` hands on and how it reports; the page itself is tested with `daemon.report`."""

import json

import pytest

import daemon.report.build
from daemon.errors import StoreError, StoreReason


@pytest.fixture
def reported(monkeypatch):
    calls = []

    def report_run(run, out, particles, progress):
        calls.append((str(run), particles))
        progress(0.5)
        out.write_text("<html>")
        if particles == [99]:
            raise StoreError(StoreReason.NO_PARTICLE, "the run has no particle 99")

    monkeypatch.setattr(daemon.report.build, "report_run", report_run)
    return calls


def test_report(run, reported, tmp_path):
    out = tmp_path / "r.html"
    done = run("report", "r.db", "--out", out)
    assert (done.exit_code, done.stdout, done.stderr) == (0, f"{out}: 0.0 MB\n", "")
    assert reported == [("r.db", None)] and out.read_text() == "<html>"
    assert list(tmp_path.iterdir()) == [out], "nothing is left beside it"


def test_the_gallerys_particles(run, reported, tmp_path):
    done = run("report", "r.db", "--out", tmp_path / "r.html", "--particles", "7, 3-4", "--json")
    assert reported == [("r.db", [3, 4, 7])]
    assert json.loads(done.stdout) == {"out": str(tmp_path / "r.html"), "size_mb": 0.0}
    assert run("report", "r.db", "--out", tmp_path / "r.html", "--particles", "x").exit_code == 2


def test_what_is_there_stays_until_the_new_one_is_whole(run, reported, tmp_path):
    out = tmp_path / "r.html"
    out.write_text("precious")
    failed = run("report", "r.db", "--out", out, "--particles", "99")
    assert failed.exit_code == 1 and "no particle 99" in failed.stderr
    assert out.read_text() == "precious" and list(tmp_path.iterdir()) == [out]
    assert run("report", "r.db", "--out", out).exit_code == 0 and out.read_text() == "<html>"


@pytest.mark.parametrize("out", ["no/such/r.html", "."])
def test_a_place_that_cannot_be_written(run, reported, tmp_path, out):
    done = run("report", "r.db", "--out", tmp_path / out)
    assert done.exit_code == 1 and "cannot be written" in done.stderr and reported == []


def test_a_file_that_is_no_run(run, tmp_path):
    done = run("report", tmp_path / "none.db", "--out", tmp_path / "r.html")
    assert done.exit_code == 1 and "none.db" in done.stderr and not (tmp_path / "r.html").exists()
