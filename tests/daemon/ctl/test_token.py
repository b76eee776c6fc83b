"""`photometryctl token`: no daemon is asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def test_made_listed_and_revoked(run: Any, tmp_path: Path) -> None:
    place = ("--state-dir", str(tmp_path))
    made = run("token", "create", "lab-pc", "--scope", "operate", "--days", "30", *place)
    assert made.exit_code == 0, made.output
    secret = made.stdout.strip()
    assert secret.startswith("ph_") and secret not in made.stderr
    listed = run("token", "list", *place, "--json")
    (row,) = json.loads(listed.stdout)["tokens"]
    assert (row["name"], row["scope"], row["valid"]) == ("lab-pc", "operate", True)
    assert secret not in listed.stdout and "sha256" not in listed.stdout
    assert "lab-pc" in run("token", "list", *place).stdout
    assert run("token", "revoke", "lab-pc", *place).exit_code == 0
    assert json.loads(run("token", "list", *place, "--json").stdout)["tokens"] == []


def test_what_cannot_be_done_is_a_sentence(run: Any, tmp_path: Path) -> None:
    place = ("--state-dir", str(tmp_path))
    assert run("token", "create", "a", "--scope", "read", *place).exit_code == 0
    again = run("token", "create", "a", "--scope", "read", *place)
    assert again.exit_code == 1 and "already" in again.stderr
    absent = run("token", "revoke", "b", *place)
    assert absent.exit_code == 1 and "no token 'b'" in absent.stderr
    nowhere = run("token", "create", "a", "--scope", "read", "--state-dir", str(tmp_path / "none"))
    assert nowhere.exit_code == 1 and "cannot be written" in nowhere.stderr
    (tmp_path / "tokens.json").write_text("{")
    damaged = run("token", "list", *place)
    assert damaged.exit_code == 1 and "tokens.json" in damaged.stderr
    assert run("token", "create", "c", "--scope", "root", *place).exit_code == 2
