import json

import pytest

from tests.daemon.ctl.fake_daemon import answering, refusing

VERSIONS = {
    "run_id": "r7",
    "versions": [
        {"version": 1, "from_frame": 0, "utc": "2026-01-02T03:04:05Z", "actor": "", "edits": [], "particles": 8},
        {"version": 2, "from_frame": 512, "utc": "2026-01-02T03:05:05Z", "actor": "token:ann", "particles": 8,
         "edits": [{"action": "remove", "particle_id": 3},
                   {"action": "replace", "particle_id": 4, "new_particle_id": 9, "outline_px": [[1, 2]]}]},
    ],
}  # fmt: skip
EDITED = VERSIONS["versions"][1] | {"run_id": "r7"}
EDITS = [{"action": "add", "outline_px": [[1.5, 2.5], [1.5, 9.5], [9.5, 9.5]]}]


@pytest.fixture(autouse=True)
def served(fake):
    fake.answers["GET /runs/r7/masks"] = answering(VERSIONS)
    fake.answers["PATCH /runs/r7/masks"] = answering(EDITED)


def sent(fake):
    ((_, body),) = fake.asked("PATCH", "/runs/r7/masks")
    return body


def test_versions_are_listed_of_the_run_in_progress_or_the_one_named(ctl):
    for command in (["masks"], ["masks", "r7"]):
        done = ctl(*command)
        assert done.exit_code == 0, done.stderr
        for words in ("512", "token:ann", "remove 3, replace 4 9"):
            assert words in done.stdout, words
    assert json.loads(ctl("masks", "--json").stdout) == VERSIONS


def test_particles_are_removed_by_id(ctl, fake):
    done = ctl("masks", "r7", "--remove", "3", "--remove", "5", "--version", "1")
    assert done.exit_code == 0 and done.stdout == "version 2 from frame 512 on, new: 9\n"
    assert sent(fake) == {
        "edits": [{"action": "remove", "particle_id": 3}, {"action": "remove", "particle_id": 5}], "version": 1
    }  # fmt: skip


def test_edits_come_from_a_file(ctl, fake, tmp_path):
    file = tmp_path / "edits.json"
    file.write_text(json.dumps({"edits": EDITS, "version": 4}))
    done = ctl("masks", "--edits", file, "--remove", "7", "--json")
    assert done.exit_code == 0 and json.loads(done.stdout) == EDITED
    assert sent(fake) == {"edits": [{"action": "remove", "particle_id": 7}, *EDITS], "version": 4}


def test_an_edit_that_takes_longer_is_waited_for(ctl, fake, monkeypatch):
    monkeypatch.setattr("daemon.ctl.client.POLL_S", 0.01)
    fake.answers["PATCH /runs/r7/masks"] = fake.operation(
        "op1", {"state": "running"}, {"state": "done", "result": EDITED}
    )
    done = ctl("masks", "r7", "--remove", "3")
    assert done.exit_code == 0 and "version 2" in done.stdout


def test_a_refusal_is_a_sentence(ctl, fake):
    fake.answers["PATCH /runs/r7/masks"] = refusing(
        422, "masks.overlap", "9 px belong to particle 3", "Draw around it."
    )
    done = ctl("masks", "r7", "--remove", "3")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "9 px belong to particle 3" in done.stderr and "Draw around it." in done.stderr


@pytest.mark.parametrize("text", ["", "{", '{"edits": 3}', "[1]"])
def test_a_file_that_holds_no_edits_is_said(ctl, fake, tmp_path, text):
    file = tmp_path / "edits.json"
    file.write_text(text)
    done = ctl("masks", "--edits", file)
    assert done.exit_code == 1 and str(file) in done.stderr
    assert fake.asked("PATCH", "/runs/r7/masks") == []


@pytest.mark.parametrize("options", [["--version", "2"], ["--remove", "-1"], ["--remove", "x"]])
def test_wrong_usage(ctl, options):
    assert ctl("masks", *options).exit_code == 2
