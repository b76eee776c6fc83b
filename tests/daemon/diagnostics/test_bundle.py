"""The bundle: complete, without secrets, with the daemon dead, whole or not there."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from daemon.diagnostics import archive as archive_module
from daemon.diagnostics import bundle as bundle_module
from daemon.diagnostics import evidence
from daemon.diagnostics.bundle import LIVE, ROOT, write_bundle
from daemon.diagnostics.faults import Faults
from daemon.diagnostics.logs import log_file
from daemon.errors import StoreError, StoreReason
from daemon.store.writer import StoreWriter

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
    files = made(tmp_path, config_path=config_path, state_dir=state_dir, live={"status.json": status})
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
    files = made(
        tmp_path, config_path=config_path, state_dir=state_dir, live={"status.json": {"note": f"key {SECRET}"}}
    )
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
    assert {entry["file"]: entry["reason"] for entry in manifest["missing"]}["status.json"].startswith(
        "ValueError: the daemon did not answer"
    )


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


def names(files: dict[str, bytes]) -> set[str]:
    """Every file that the manifest tells of, there or missing."""
    manifest = json.loads(files["manifest.json"])
    return {entry["file"] for entry in [*manifest["files"], *manifest["missing"]]}


def test_with_and_without_a_daemon_the_list_of_files_is_the_same(
    tmp_path: Path, config_path: Path, state_dir: Path
) -> None:
    live = {"status.json": {"state": "ready"}, "metrics.txt": b"instrument_x 1\n", "selftest-daemon.json": {"a": 1}}
    assert set(live) == set(LIVE)
    alive = made(tmp_path, config_path=config_path, state_dir=state_dir, live=live)
    dead = made(tmp_path, config_path=config_path, state_dir=state_dir)
    assert alive["metrics.txt"] == b"instrument_x 1\n"
    assert names(alive) == names(dead)
    assert names(dead) >= {"store.json", "usb.txt", "journal.txt", "dmesg.txt", *LIVE}
    assert set(LIVE).isdisjoint(dead)


def test_runs_faults_and_audit_of_the_catalogue_are_in_it(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path / "instrument.db")
    writer.start()
    writer.audit("operator", "cell.off", f"secret={SECRET}").result(10)
    writer.stop()
    files = made(tmp_path, config_path=None, state_dir=tmp_path)
    store = json.loads(files["store.json"])
    assert (store["runs"], store["audit"][0]["action"]) == ([], "cell.off")
    assert SECRET not in files["store.json"].decode()


@pytest.mark.parametrize("content", [b"", b"not a database at all" * 400, b"SQLite format 3\0" + b"\xff" * 9000])
def test_a_damaged_store_costs_its_own_file_only(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "instrument.db").write_bytes(content)
    files = made(tmp_path, config_path=None, state_dir=tmp_path)
    missing = {entry["file"]: entry["reason"] for entry in json.loads(files["manifest.json"])["missing"]}
    assert "store.json" in missing
    assert {"versions.json", "machine.json", "selftest.json", "state-directory.txt"} <= set(files)
    assert (tmp_path / "instrument.db").read_bytes() == content


def test_settings_that_may_not_be_read_are_listed_with_the_reason(
    tmp_path: Path, config_path: Path, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Path.open

    def closed(self: Path, *arguments: Any, **more: Any) -> Any:
        if self == config_path:
            raise PermissionError(13, "Permission denied", str(self))
        return opened(self, *arguments, **more)

    monkeypatch.setattr(Path, "open", closed)
    files = made(tmp_path, config_path=config_path, state_dir=state_dir)
    missing = {entry["file"]: entry["reason"] for entry in json.loads(files["manifest.json"])["missing"]}
    assert "Permission denied" in missing["config.toml"]


def test_evidence_that_fails_by_a_fault_of_ours_is_missing_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> dict[str, Any]:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(evidence, "versions", broken)
    files = made(tmp_path, config_path=None, state_dir=tmp_path)
    missing = {entry["file"]: entry["reason"] for entry in json.loads(files["manifest.json"])["missing"]}
    assert missing["versions.json"] == "ZeroDivisionError: division by zero"


def test_snapshots_are_in_it_as_they_are(tmp_path: Path, state_dir: Path) -> None:
    folder = state_dir / "snapshots"
    folder.mkdir()
    (folder / "20260102T030405Z-camera.stalled.tar.gz").write_bytes(b"\x1f\x8bone")
    (folder / ".20260102T030405Z-half.tar.gz.x").write_bytes(b"half")
    files = made(tmp_path, config_path=None, state_dir=state_dir)
    assert files["snapshots/20260102T030405Z-camera.stalled.tar.gz"] == b"\x1f\x8bone"
    assert [name for name in files if name.startswith("snapshots/")] == [
        "snapshots/20260102T030405Z-camera.stalled.tar.gz"
    ]


def test_a_kernel_that_is_not_asked_is_read_from_the_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def output(command: list[str]) -> str:
        asked.append(command[0])
        if command[0] == "dmesg":
            raise ValueError("dmesg ended with 1: Operation not permitted")
        return "usb 2-1: reset\n"

    monkeypatch.setattr(evidence, "output", output)
    assert evidence.kernel_log(["dmesg"]).startswith("usb 2-1: reset\n(from the journal")
    assert asked == ["dmesg", "journalctl"]


def test_archives_hold_what_their_sum_allows(tmp_path: Path) -> None:
    archive = archive_module.Archive([], 10)
    archive.add("a", "first", lambda: b"12345678")
    archive.add("b", "too much", lambda: b"123")
    archive.add("c", "fits", lambda: b"12")
    archive.write(tmp_path / "x.tar.gz", "root")
    with tarfile.open(tmp_path / "x.tar.gz") as file:
        assert file.getnames() == ["root/manifest.json", "root/a", "root/c"]
