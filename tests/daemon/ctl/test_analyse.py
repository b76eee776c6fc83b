"""What `analyse` and `export` hand on and how they report; the analysis itself is tested with `daemon.offline`."""

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

import daemon.store.export
from daemon.engine.measures import NoiseModel
from daemon.errors import RecordingError, RecordingReason, StoreError, StoreReason
from tests.daemon.report.synthetic_run import SyntheticRun
from tests.daemon.store.helpers import damaged_copy


@dataclass
class Summary:
    frames: int = 60
    particles: int = 12
    seconds: float = 0.5
    faults: list = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)
    noise: NoiseModel | None = None


@pytest.fixture
def offline(monkeypatch):
    """Stands in for `daemon.offline`: `calls` are what it was asked, `act` what it does then."""
    fake = SimpleNamespace(calls=[], act=lambda out, progress: out.write_bytes(b"results"), summary=Summary())

    def analyse(recording, out, *, overrides, progress, scheduler=None):
        fake.calls.append((recording, overrides))
        fake.act(out, progress)
        return fake.summary

    fake.analyse = analyse
    monkeypatch.setitem(sys.modules, "daemon.offline", fake)
    return fake


def refuse(*_):
    raise RecordingError(RecordingReason.BAD_DATASET, "dataset 'movie' holds float32")


def test_analyse(run, offline, tmp_path):
    done = run("analyse", "r.h5", "--out", tmp_path / "r.db")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == f"{tmp_path / 'r.db'}: 60 frames, 12 particles in 0.5 s, 120 frames/s\n"
    assert (tmp_path / "r.db").read_bytes() == b"results" and offline.calls == [(Path("r.h5"), {})]


def test_what_the_noise_is_and_how_it_is_known(run, offline, tmp_path):
    offline.summary = Summary(noise=NoiseModel(8.03, 7.0, 64.0, True, "estimated", "assumed", "given", 0.04, 3.0))
    done = run("analyse", "r.h5", "--out", tmp_path / "r.db")
    assert done.stdout.splitlines()[1] == (
        "gain 8.03 e/DN (estimated, +-0.5 %); read noise 7 e (assumed, +-43 %); dark level 64 DN (given)"
    )
    noise = json.loads(run("analyse", "r.h5", "--out", tmp_path / "s.db", "--json").stdout)["noise"]
    assert noise["gain_origin"] == "estimated" and noise["dark_sigma_dn"] is None


def test_values_are_numbers_where_they_read_as_such(run, offline, tmp_path):
    sets = ["frame_interval_s=0.01", "electrode=anode", "masks.split_touching=false", "a=b=c", "bit_depth=12"]
    options = [part for one in sets for part in ("--set", one)]
    assert run("analyse", "r.h5", "--out", tmp_path / "r.db", "--pixel-size-nm", "96", *options).exit_code == 0
    assert offline.calls[0][1] == {
        "frame_interval_s": 0.01, "electrode": "anode", "masks.split_touching": False, "a": "b=c", "bit_depth": 12,
        "pixel_size_nm": 96.0,
    }  # fmt: skip


def test_faults_are_told_and_do_not_fail(run, offline, tmp_path):
    offline.summary = Summary(faults=[("recording.truncated", "'movie' stores 3 of 5", 3), ("a", "b")])
    offline.summary.dropped = {"camera.lost": 14, "recording.unreadable": 2}
    done = run("analyse", "r.h5", "--out", tmp_path / "r.db")
    assert done.exit_code == 0 and done.stderr == "fault: 'movie' stores 3 of 5\nfault: b\n"
    assert done.stdout.endswith(", 14 frames lost by the camera, 2 frames left out\n")


def test_the_summary_as_json(run, offline, tmp_path):
    offline.summary = Summary(faults=[("a.b", "c", None)])
    document = json.loads(run("analyse", "r.h5", "--out", tmp_path / "r.db", "--json").stdout)
    assert document["frames"] == 60 and document["faults"] == [["a.b", "c", None]]


def test_an_existing_file_is_kept_without_force(run, offline, tmp_path):
    out = tmp_path / "r.db"
    out.write_bytes(b"precious")
    done = run("analyse", "r.h5", "--out", out)
    assert done.exit_code == 1 and "exists already" in done.stderr
    assert out.read_bytes() == b"precious" and offline.calls == []


def test_force_replaces_only_with_a_whole_file(run, offline, tmp_path):
    out = tmp_path / "r.db"
    out.write_bytes(b"precious")
    (tmp_path / "r.db-wal").write_bytes(b"of the old one")
    succeed, offline.act = offline.act, refuse
    assert run("analyse", "r.h5", "--out", out, "--force").exit_code == 1
    assert out.read_bytes() == b"precious" and len(list(tmp_path.iterdir())) == 2
    offline.act = succeed
    assert run("analyse", "r.h5", "--out", out, "--force").exit_code == 0
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("r.db", b"results")]


def test_a_bad_recording_is_a_sentence(run, offline, tmp_path):
    offline.act = refuse
    done = run("analyse", "r.h5", "--out", tmp_path / "r.db")
    assert done.exit_code == 1
    assert done.stderr.startswith("photometryctl: dataset 'movie' holds float32. Correct the dataset")


@pytest.mark.parametrize("out", ["no/such/r.db", "."])
def test_a_place_that_cannot_be_written(run, offline, tmp_path, out):
    done = run("analyse", "r.h5", "--out", tmp_path / out)
    assert done.exit_code == 1 and "cannot be written" in done.stderr and offline.calls == []


def test_progress_may_be_told_in_any_way(run, offline, tmp_path):
    def act(out, progress):
        for done, total in ((0, 0), (1, 10), (10, 10), (10, 5)):
            progress(done, total)

    offline.act = act
    assert run("analyse", "r.h5", "--out", tmp_path / "r.db").exit_code == 0


@pytest.fixture
def exported(monkeypatch):
    calls = []

    def export_run(run_path, out_dir, **options):
        calls.append((run_path, out_dir, {name: value for name, value in options.items() if name != "progress"}))
        options["progress"](0.5)
        return {"traces": out_dir / "traces.csv"}

    monkeypatch.setattr(daemon.store.export, "export_run", export_run)
    return calls


def test_export_hands_everything_on(run, exported, tmp_path):
    done = run(
        "export", "r.db", "--out", tmp_path, "--format", "csv", "--particles", "3, 10-12,3", "--from", "1.5",
        "--to", "2", "--table", "traces", "--table", "events",
    )  # fmt: skip
    assert (done.exit_code, done.stdout, done.stderr) == (0, f"{tmp_path / 'traces.csv'}\n", "")
    ((path, out, options),) = exported
    assert (path, out) == (Path("r.db"), tmp_path)
    assert options == {
        "format": "csv", "particles": {3, 10, 11, 12}, "from_s": 1.5, "to_s": 2.0, "tables": ("traces", "events"),
    }  # fmt: skip


def test_export_takes_everything_by_default(run, exported, tmp_path):
    done = run("export", "r.db", "--out", tmp_path, "--json")
    assert json.loads(done.stdout) == {"traces": str(tmp_path / "traces.csv")}
    assert exported[0][2] == {"format": "parquet", "particles": None, "from_s": None, "to_s": None, "tables": None}


def test_export_tells_what_it_left_out(tmp_path):
    damaged = damaged_copy(SyntheticRun(particles=4, frames=300).write(tmp_path / "whole.db"), tmp_path / "r.db")
    command = [sys.executable, "-m", "daemon.ctl", "export", damaged, "--out", tmp_path / "out", "--table", "frames"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"{tmp_path / 'out' / 'frames.parquet'}\n"
    assert done.stderr == f"1 damaged chunks of {damaged} were left out\n"


def test_export_of_something_else(run, tmp_path):
    done = run("export", tmp_path / "none.db", "--out", tmp_path / "out")
    assert done.exit_code == 1 and "none.db" in done.stderr and not (tmp_path / "out").exists()


def test_export_that_fails(run, monkeypatch, tmp_path):
    def full(*_, **__):
        raise StoreError(StoreReason.DISK_FULL, "no space for traces.csv")

    monkeypatch.setattr(daemon.store.export, "export_run", full)
    done = run("export", "r.db", "--out", tmp_path)
    assert done.exit_code == 1 and done.stderr.startswith("photometryctl: no space for traces.csv")
