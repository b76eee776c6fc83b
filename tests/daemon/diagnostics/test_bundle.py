"""The bundle: complete, without secrets, with the daemon dead, whole or not there."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from daemon.diagnostics import bundle as bundle_module
from daemon.diagnostics import evidence
from daemon.diagnostics.bundle import ROOT, write_bundle
from daemon.diagnostics.faults import Faults
from daemon.diagnostics.logs import log_file
from daemon.errors import StoreError, StoreReason

SECRET = "s3cr3t-battery-staple"


@pytest.fixture(autouse=True)
def _no_host_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle_module, "JOURNAL", ["echo", f"journal with secret={SECRET}"])
    monkeypatch.setattr(bundle_module, "DMESG", ["echo", "usb 1-1: reset"])


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    state_dir = tmp_path / "state"
    (state_dir / "runs").mkdir(parents=True)
    (state_dir / "runs" / "r1.db").write_bytes(b"x" * 1234)
    faults = Faults(state_dir)
    faults.note("camera.stalled", "no frame for 2 s", "Check it.")
    faults.persist()
    log_file(state_dir).parent.mkdir()
    log_file(state_dir).write_text(json.dumps({"message": f'login with secret="{SECRET}"'}) + "\n{torn")
    return state_dir


@pytest.fixture
def config_path(tmp_path: Path) -> Path:
    path = tmp_path / "photometryd.toml"
    path.write_text(f'[[api.tokens]]\nname = "viewer"\nsecret = "{SECRET}"\n[api]\n')
    return path


def unpacked(path: Path) -> dict[str, bytes]:
    with tarfile.open(path, "r:gz") as archive:
        members = archive.getmembers()
        assert all(member.name.startswith(f"{ROOT}/") and member.isfile() for member in members)
        return {m.name.removeprefix(f"{ROOT}/"): archive.extractfile(m).read() for m in members}  # type: ignore[union-attr]


def made(tmp_path: Path, **arguments: Any) -> dict[str, bytes]:
    out = tmp_path / "bundle.tar.gz"
    write_bundle(out, **arguments)
    return unpacked(out)


def test_everything_asked_for_is_in_it(tmp_path: Path, config_path: Path, state_dir: Path) -> None:
    status = {"state": "ready", "token": SECRET}
    files = made(tmp_path, config_path=config_path, state_dir=state_dir, status=status)
    assert json.loads(files["status.json"])["state"] == "ready"
    assert b'name = "viewer"' in files["config.toml"]
    assert json.loads(files["versions.json"])["packages"]["numpy"]
    assert json.loads(files["faults.jsonl"])["code"] == "camera.stalled"
    assert {check["name"] for check in json.loads(files["selftest.json"])["checks"]} >= {"state_directory", "clock"}
    assert json.loads(files["machine.json"])["memory_total_bytes"] > 0
    assert b"1234" in files["state-directory.txt"]
    assert b"runs/r1.db" in files["state-directory.txt"]
    assert files["dmesg.txt"] == b"usb 1-1: reset\n"
    rows = [json.loads(line) for line in files["logs/photometryd.jsonl"].splitlines()]
    assert rows[1] == {"damaged": "{torn"}


def test_no_secret_is_in_it(tmp_path: Path, config_path: Path, state_dir: Path) -> None:
    files = made(tmp_path, config_path=config_path, state_dir=state_dir, status={"note": f"key {SECRET}"})
    for name, raw in files.items():
        assert SECRET.encode() not in raw, name


def test_settings_that_do_not_parse_are_redacted_too(tmp_path: Path, state_dir: Path, config_path: Path) -> None:
    config_path.write_text(f"[api\nport = \nsecret = '{SECRET}'\n")
    files = made(tmp_path, config_path=config_path, state_dir=state_dir)
    assert b"port = \nsecret = '********'" in files["config.toml"]


def test_the_manifest_accounts_for_every_file(tmp_path: Path, config_path: Path, state_dir: Path) -> None:
    files = made(tmp_path, config_path=config_path, state_dir=state_dir)
    manifest = json.loads(files.pop("manifest.json"))
    listed = {entry["file"]: entry for entry in manifest["files"]}
    assert set(listed) == set(files)
    for name, raw in files.items():
        assert listed[name]["bytes"] == len(raw)
        assert listed[name]["sha256"] == hashlib.sha256(raw).hexdigest()
        assert listed[name]["why"]
    assert {entry["file"]: entry["reason"] for entry in manifest["missing"]}["status.json"].endswith("did not answer")


def test_with_nothing_there_a_bundle_is_made_that_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle_module, "JOURNAL", ["no-such-command"])
    monkeypatch.setattr(bundle_module, "DMESG", ["sh", "-c", "echo not permitted >&2; exit 1"])
    files = made(tmp_path, config_path=tmp_path / "absent.toml", state_dir=tmp_path / "absent")
    missing = {entry["file"]: entry["reason"] for entry in json.loads(files["manifest.json"])["missing"]}
    assert set(missing) >= {"status.json", "config.toml", "faults.jsonl", "state-directory.txt", "journal.txt"}
    assert "there is no no-such-command here" in missing["journal.txt"]
    assert "not permitted" in missing["dmesg.txt"]
    outcomes = {check["name"]: check["outcome"] for check in json.loads(files["selftest.json"])["checks"]}
    assert outcomes["state_directory"] == "fail"


def test_a_hanging_command_costs_its_deadline_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle_module, "JOURNAL", ["sleep", "60"])
    monkeypatch.setattr(evidence, "COMMAND_TIMEOUT_S", 0.1)
    files = made(tmp_path, config_path=None, state_dir=tmp_path)
    missing = {entry["file"]: entry["reason"] for entry in json.loads(files["manifest.json"])["missing"]}
    assert "timed out" in missing["journal.txt"]


def test_what_does_not_fit_is_left_out_and_listed(
    tmp_path: Path, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle_module, "MAX_BYTES", 20_000)
    log_file(state_dir).write_text('{"message": "x"}\n' * 10_000)
    files = made(tmp_path, config_path=None, state_dir=state_dir)
    assert "logs/photometryd.jsonl" not in files
    missing = {entry["file"]: entry["reason"] for entry in json.loads(files["manifest.json"])["missing"]}
    assert "do not fit" in missing["logs/photometryd.jsonl"]
    assert "dmesg.txt" in files


def test_only_the_owner_may_read_it(tmp_path: Path, state_dir: Path) -> None:
    write_bundle(tmp_path / "b.tar.gz", config_path=None, state_dir=state_dir)
    assert (tmp_path / "b.tar.gz").stat().st_mode & 0o777 == 0o600


def test_a_place_that_cannot_be_written_is_named_and_left_clean(
    tmp_path: Path, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StoreError) as caught:
        write_bundle(tmp_path / "absent" / "b.tar.gz", config_path=None, state_dir=state_dir)
    assert caught.value.reason is StoreReason.NOT_WRITABLE
    assert "absent/b.tar.gz" in str(caught.value)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    out = tmp_path / "out"
    out.mkdir()
    (out / "b.tar.gz").write_bytes(b"the bundle of yesterday")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError) as caught:
        write_bundle(out / "b.tar.gz", config_path=None, state_dir=state_dir)
    assert caught.value.reason is StoreReason.DISK_FULL
    assert [path.read_bytes() for path in out.iterdir()] == [b"the bundle of yesterday"]
