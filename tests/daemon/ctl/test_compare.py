import json
import re
import shutil
import sqlite3

import pytest

from daemon.store.proof import prove_again
from tests.daemon.insight.runs import plain_cell, write_run


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    for k, name in enumerate(("a0", "a1", "b0", "b1")):
        shift = 1.0 if name.startswith("b") else 0.0
        write_run(plain_cell(k, count=60, cycles=2, shift=shift, name=name), folder)
    return folder


@pytest.fixture
def groups(files):
    return ["--group", f"old={files / 'a0.db'},{files / 'a1.db'}", "--group", f"new <b>={files / 'b0.db'}",
            "--group", f"new <b>={files / 'b1.db'}"]  # fmt: skip


def test_the_page_and_the_document(run, groups, tmp_path):
    out, document = tmp_path / "c.html", tmp_path / "c.json"
    done = run("compare", *groups, "--out", out, "--json", document)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith(
        "Different: typical rate (new <b> against old).\nTypical rate: new <b> differs from old by +"
    )
    assert done.stdout.splitlines()[-2:] == [str(out), str(document)]
    found = json.loads(document.read_text())
    assert {name: len(paths) for name, paths in found["groups"].items()} == {"old": 2, "new <b>": 2}
    text = out.read_text()
    assert "<b>=" not in text and "new &lt;b&gt; differs from old" in text
    again = tmp_path / "again.html"
    assert run("compare", *groups, "--out", again).exit_code == 0 and again.read_text() == text, (
        "equal runs, equal pages"
    )


def test_files_are_their_own_groups(run, files, tmp_path):
    done = run("compare", files / "a0.db", files / "b0.db", "--out", tmp_path / "c.html")
    assert done.exit_code == 0 and "b0 differs from a0" in done.stdout
    assert "One cell each" in done.stdout and "warning: Every group is one cell" in done.stderr


def test_a_known_spread_of_cells_and_another_level(run, files):
    done = run("compare", files / "a0.db", files / "b0.db", "--json", "-", "--cell-sd", "0.03", "--alpha", "0.05")
    found = json.loads(done.stdout)
    assert found["alpha"] == 0.05 and found["pairs"][0]["basis"] == "given"
    assert json.loads(run("--json", "compare", files / "a0.db", files / "b0.db").stdout)["alpha"] == 0.01


@pytest.mark.parametrize(
    "arguments",
    [["{a}", "--out", "c.html"], ["{a}", "{b}"], ["--group", "x", "--group", "y={b}", "--out", "c.html"],
     ["--group", "x=", "{b}", "--out", "c.html"], ["{a}", "{b}", "--out", "{a}"],
     ["{a}", "{b}", "--out", "c.html", "--json", "{b}"], ["{a}", "{b}", "--out", "c.html", "--alpha", "2"],
     ["{a}", "{b}", "--out", "c.html", "--cell-sd", "-1"]],
)  # fmt: skip
def test_wrong_usage(run, files, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    before = (files / "a0.db").read_bytes()
    done = run("compare", *(each.format(a=files / "a0.db", b=files / "b0.db") for each in arguments))
    assert done.exit_code == 2 and "Usage:" in done.stderr
    assert not (tmp_path / "c.html").exists() and (files / "a0.db").read_bytes() == before


def test_one_run_cannot_be_two_cells(run, files, tmp_path):
    copy = tmp_path / "copy.db"
    shutil.copyfile(files / "a0.db", copy)
    for other in (copy, files / "a0.db"):
        done = run("compare", "--group", f"x={files / 'a0.db'},{other}", files / "b0.db", "--out", tmp_path / "c.html")
        assert done.exit_code == 1 and "are the same run" in done.stderr and not (tmp_path / "c.html").exists()


def test_damaged_and_other_files(run, files, tmp_path):
    torn, text = tmp_path / "torn.db", tmp_path / "text.db"
    raw = bytearray((files / "a0.db").read_bytes())
    raw[4096:] = b"\x5a" * (len(raw) - 4096)
    torn.write_bytes(raw)
    text.write_text("not a run")
    for bad in (torn, text, tmp_path / "none.db"):
        done = run("compare", bad, files / "b0.db", "--out", tmp_path / "c.html")
        assert done.exit_code == 1 and bad.name in done.stderr and done.stderr.count("\n") == 1
        assert re.match("photometryctl: ", done.stderr) and "unexpected" not in done.stderr


def test_tables_that_do_not_fit_each_other(run, files, tmp_path):
    bad = tmp_path / "bad.db"
    shutil.copyfile(files / "a0.db", bad)
    with sqlite3.connect(bad) as connection:
        connection.execute("update cycles set particle_id = 999 where particle_id = 3")
        prove_again(connection, "cycles", "particle_id = 999")
    connection.close()
    done = run("compare", bad, files / "b0.db", "--out", tmp_path / "c.html")
    assert done.exit_code == 1 and "has cycles of particles that it does not have" in done.stderr


def test_a_place_that_cannot_be_written(run, files, tmp_path):
    done = run("compare", files / "a0.db", files / "b0.db", "--out", tmp_path / "no" / "c.html")
    assert done.exit_code == 1 and "cannot be written" in done.stderr
