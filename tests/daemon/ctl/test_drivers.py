import json
import shutil

import numpy as np
import pytest

from daemon.events import Event, EventKind
from daemon.insight.drivers import drivers
from daemon.insight.estimates import normal_scores
from daemon.insight.run_data import RunData
from tests.daemon.insight.runs import plain_cell, without_pixel_size, write_run

COUNT, CYCLES = 90, 6


def cracking(seed, name, beta):
    """Longer particles crack `beta` times as often, in logarithms; thick and thin ones of every length."""
    run = plain_cell(seed, count=COUNT, cycles=CYCLES, dead=0.0, name=name)
    rng = np.random.default_rng([seed, 1])
    run.particles["equivalent_diameter_um"] *= np.exp(0.3 * rng.normal(size=COUNT))
    run.particles["brightness_e"] *= np.exp(0.3 * rng.normal(size=COUNT))
    run.particles["nearest_neighbour_um"][: COUNT - 30] = np.nan
    when = rng.exponential(1 / (0.05 * np.exp(beta * normal_scores(run.particles["major_um"]))))
    run.events.extend(
        Event(EventKind.CRACK, 15600.0 * t, 15600.0 * t, int(identity))
        for identity, t in zip(run.particle_id, when, strict=True)
        if t < CYCLES
    )
    return run


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drivers")
    paths = [write_run(cracking(3, "a", 1.3), folder), write_run(cracking(4, "b", 1.3), folder)]
    few = cracking(5, "few", 0.0)
    few.particles.update(without_pixel_size(few.particles))
    few.metadata["pixel_size_nm"] = None
    few.events.clear()
    return [*paths, write_run(few, folder)]


@pytest.fixture(scope="module")
def found(files):
    return drivers(RunData.load(files[0]))


@pytest.fixture(scope="module")
def known(files, found):
    return {(files[0], 0.05): found}


@pytest.fixture(autouse=True)
def once(known, monkeypatch):
    """Every run is tested once for all tests of this file."""

    def tested(run, alpha):
        if (run.path, alpha) not in known:
            known[run.path, alpha] = drivers(run, alpha)
        return known[run.path, alpha]

    monkeypatch.setattr("daemon.insight.drivers.drivers", tested)


def test_what_is_found_is_told_with_its_interval_and_corrected_p(run, files, found):
    done = run("drivers", files[0])
    assert (done.exit_code, done.stderr) == (0, "")
    head, *lines = done.stdout.splitlines()
    assert head == f"{files[0]}: {COUNT} particles"
    assert [line.strip() for line in lines[: len(found.sentences())]] == found.sentences()
    assert found.sentences()[0].startswith("Longer particles crack first: hazard ratio ")
    assert any("which of two goes first in " in line for line in lines)
    (names,) = [line.split() for line in lines if line.startswith("fate")]
    assert "run" not in names and names[:6] == ["fate", "property", "measure", "effect", "lo", "hi"]
    (crack,) = [fate for fate in found.fates if fate.outcome == "crack"]
    length = next(effect for effect in crack.effects if effect.covariate == "length")
    row = next(line for line in lines if line.startswith("cracking  length"))
    assert "hazard ratio" in row and all(
        f"{value:.5g}" in row for value in (length.effect, length.lo, length.hi, length.q)
    )
    assert str(crack.failures) in row.split() and str(length.particles) in row.split()


def test_what_could_not_be_told_says_why(run, files):
    text = run("drivers", files[2]).stdout
    assert f"Failure: 0 of {COUNT} particles failed; at least 5 must, to tell who fails first." in text
    assert "Not used: length, known for 0 particles; the run has no pixel size." in text
    assert "Nothing measured drives " in text
    with_gaps = run("drivers", files[0]).stdout
    left_out = f"Not tested: nearest neighbour, known for 30 of {COUNT} particles, against cracking, rate on charge, "
    assert left_out in with_gaps


def test_json_holds_everything_and_no_nan(run, files, found):
    answer = json.loads(run("drivers", files[0], files[2], "--json", "--alpha", "0.05").stdout)
    assert (answer["alpha"], [each["run"] for each in answer["runs"]]) == (0.05, ["a", "few"])
    crack = next(fate for fate in answer["runs"][0]["fates"] if fate["outcome"] == "crack")
    truth = next(fate for fate in found.fates if fate.outcome == "crack")
    assert (crack["measure"], crack["no_effect"], crack["failures"]) == ("hazard ratio", 1.0, truth.failures)
    assert crack["not_tested"] == {"nearest_neighbour": f"known for 30 of {COUNT} particles"}
    for told, effect in zip(crack["effects"], truth.effects, strict=True):
        assert (told["covariate"], told["effect"], told["q"]) == (effect.covariate, effect.effect, effect.q)
        assert told["lo"] < told["effect"] < told["hi"]
    rate = next(fate for fate in answer["runs"][0]["fates"] if fate["outcome"] == "rate_charge")
    assert (rate["measure"], rate["no_effect"], rate["failures"]) == ("standard deviations", 0.0, None)
    failure = next(fate for fate in answer["runs"][1]["fates"] if fate["outcome"] == "failure")
    assert failure["unknown"].startswith("0 of ") and failure["effects"] == [] and failure["not_tested"] == {}
    assert answer["runs"][1]["unknown"]["length"].startswith("known for 0 particles")


def test_what_stands_in_one_run_is_shown_in_all(run, files):
    lines = run("drivers", *files[:2]).stdout.splitlines()
    (names,) = [line.split() for line in lines if line.startswith("run")]
    rows = [line.split() for line in lines if line.split()[:1] in (["a"], ["b"])]
    assert names[:3] == ["run", "fate", "property"]
    assert [row[0] for row in rows if row[1:3] == ["cracking", "length"]] == ["a", "b"]


def test_everything_is_listed_on_demand(run, files, found):
    def rows(*options):
        lines = run("drivers", files[0], *options).stdout.splitlines()
        (head,) = [k for k, line in enumerate(lines) if line.startswith("fate")]
        return len(lines) - head - 1

    tested = sum(len(fate.effects) for fate in found.fates)
    named = {(fate.outcome, e.covariate) for fate in found.fates for e in fate.effects if e.standing != "none"}
    assert rows("--all") == tested > rows() == len(named) > 0


def test_nothing_found_is_no_table(run, files):
    text = run("drivers", files[2], "--alpha", "0.000001").stdout
    assert "fate " not in text and "Nothing measured drives" in text


@pytest.mark.parametrize("arguments", [[], ["{a}", "--alpha", "0"], ["{a}", "--alpha", "0.5"], ["{a}", "--fate", "x"]])
def test_wrong_usage(run, files, arguments):
    done = run("drivers", *(each.format(a=files[0]) for each in arguments))
    assert done.exit_code == 2 and "Usage:" in done.stderr


def test_one_run_is_not_two(run, files, tmp_path):
    copy = tmp_path / "copy.db"
    shutil.copyfile(files[0], copy)
    done = run("drivers", files[0], copy)
    assert done.exit_code == 1 and "are the same run" in done.stderr and done.stdout == ""


def test_other_files_are_a_sentence(run, files, tmp_path):
    text = tmp_path / "text.db"
    text.write_text("not a run")
    for bad in (text, tmp_path / "none.db"):
        done = run("drivers", files[0], bad)
        assert done.exit_code == 1 and bad.name in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("count", [0, 1])
def test_runs_of_hardly_any_particles(run, tmp_path, count):
    whole = plain_cell(6, count=2, cycles=1)
    keep = whole.particle_id <= count
    for table in (whole.particles, whole.cycles):
        rows = keep if len(table["particle_id"]) == 2 else table["particle_id"] <= count
        table.update({name: values[rows] for name, values in table.items()})
    done = run("drivers", write_run(whole, tmp_path))
    assert done.exit_code == 0, done.stderr
    assert f"{count} particles" in done.stdout and "at least 20 are needed" in done.stdout
