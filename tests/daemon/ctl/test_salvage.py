"""Damaged files from the command line."""

from __future__ import annotations

import json
from contextlib import closing

import pytest

from daemon.store.rows import set_metadata
from daemon.store.schema import RUN, finish_file, open_writing


@pytest.fixture
def sound(tmp_path):
    path = tmp_path / "sound.db"
    with closing(open_writing(path, RUN, create=True)) as db:
        with db.atomic():
            set_metadata(db.conn, {"run_id": "a"})
        finish_file(db)
    return path


def test_every_file_is_verified_whatever_is_wrong_with_the_others(run, sound, tmp_path):
    damaged, missing, empty = tmp_path / "damaged.db", tmp_path / "none.db", tmp_path / "empty.db"
    content = bytearray(sound.read_bytes())
    content[3] ^= 1
    damaged.write_bytes(content)
    empty.touch()
    done = run("verify", missing, damaged, empty, sound)
    assert done.exit_code == 1
    assert done.stdout.splitlines() == [
        f"{missing}: not checked",
        f"{damaged}: DAMAGED, 0 rows checked",
        f"  {damaged} is not an SQLite database",
        f"{empty}: not checked",
        f"{sound}: sound, 1 rows checked",
    ]
    first, second = done.stderr.splitlines()
    assert first.startswith(f"photometryctl: there is no file {missing}. Name a run file")
    assert second.startswith(f"photometryctl: {empty} is an empty database")


def test_a_sound_file_is_exit_code_0_and_json_tells_the_rest(run, sound, tmp_path):
    assert run("verify", sound).exit_code == 0
    done = run("verify", tmp_path / "none.db", sound, "--json")
    missing, found = json.loads(done.stdout)
    assert done.exit_code == 1
    assert (missing["is_sound"], missing["code"]) == (False, "store.not_a_run") and "no file" in missing["unread"]
    assert (found["is_sound"], found["findings"], found["path"]) == (True, [], str(sound))
