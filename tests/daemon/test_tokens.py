"""The file of tokens: replaced whole, never read as empty when it is damaged."""

from __future__ import annotations

import fcntl
import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from daemon import tokens
from daemon.errors import TokenError, TokenReason
from daemon.tokens import TokenFile, digest_of, read_tokens


@pytest.fixture
def file(tmp_path: Path) -> TokenFile:
    return TokenFile(tmp_path)


def test_a_secret_is_shown_once_and_kept_as_a_hash(file: TokenFile) -> None:
    made, secret = file.create("lab-pc", "operate", timedelta(days=3))
    assert secret not in file.path.read_text()
    assert len(secret) >= 43  # 256 bits
    (found,) = read_tokens(file.path)
    assert found == made
    assert found.sha256 == digest_of(secret)
    assert found.expires_utc == found.created_utc + timedelta(days=3)
    assert file.path.stat().st_mode & 0o777 == 0o640
    assert [each.name for each in file.path.parent.iterdir()] == ["tokens.json"]


def test_secrets_differ(file: TokenFile) -> None:
    assert len({file.create(f"t{number}", "read")[1] for number in range(20)}) == 20


def test_a_name_is_taken_once(file: TokenFile) -> None:
    file.create("a", "read")
    with pytest.raises(TokenError) as refused:
        file.create("a", "admin")
    assert refused.value.reason is TokenReason.EXISTS
    assert [token.scope for token in file.tokens()] == ["read"]


@pytest.mark.parametrize("name", ["", " a", "a b", "../a", "a\n", "ä", "x" * 101, "a\0"])
def test_odd_names_are_refused(file: TokenFile, name: str) -> None:
    with pytest.raises(TokenError) as refused:
        file.create(name, "read")
    assert refused.value.reason is TokenReason.BAD_NAME
    assert not file.path.exists()


def test_the_last_one_revoked_leaves_the_file(file: TokenFile) -> None:
    file.create("a", "read")
    file.revoke("a")
    assert read_tokens(file.path) == []
    with pytest.raises(TokenError) as refused:
        file.revoke("a")
    assert refused.value.reason is TokenReason.NOT_FOUND


def _good(file: TokenFile) -> bytes:
    file.create("a", "admin")
    return file.path.read_bytes()


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: b"",
        lambda raw: raw[: len(raw) // 2],
        lambda raw: b"\0" * len(raw),
        lambda raw: b"[]",
        lambda raw: b"{}",
        lambda raw: b'{"version": 2, "tokens": []}',
        lambda raw: raw.replace(b'"admin"', b'"root"'),
        lambda raw: raw.replace(b'"sha256": "', b'"sha256": "x'),
        lambda raw: raw.replace(b"+00:00", b"").replace(b'Z"', b'"'),
        lambda raw: json.dumps({**json.loads(raw), "tokens": json.loads(raw)["tokens"] * 2}).encode(),
        lambda raw: b" " * (tokens.MAX_BYTES + 1),
    ],
)
def test_a_damaged_file_is_no_empty_file(file: TokenFile, damage: object) -> None:
    file.path.write_bytes(damage(_good(file)))  # type: ignore[operator]
    before = file.path.read_bytes()
    for attempt in (file.tokens, lambda: file.create("b", "read"), lambda: file.revoke("a")):
        with pytest.raises(TokenError) as refused:
            attempt()
        assert refused.value.reason is TokenReason.DAMAGED
    assert file.path.read_bytes() == before


def test_a_write_that_fails_leaves_the_old_file(file: TokenFile, monkeypatch: pytest.MonkeyPatch) -> None:
    before = _good(file)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        file.create("b", "read")
    assert file.path.read_bytes() == before
    assert len(list(file.path.parent.iterdir())) == 1


def test_two_commands_at_once_wait_for_each_other(file: TokenFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "LOCK_DEADLINE_S", 0.05)
    handle = os.open(file.path.parent, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(TokenError) as refused:
            file.create("a", "read")
        assert refused.value.reason is TokenReason.BUSY
    finally:
        os.close(handle)
    file.create("a", "read")


def test_expiry_by_a_right_and_by_a_wrong_clock(file: TokenFile) -> None:
    made, _ = file.create("a", "read", timedelta(days=1))
    now = datetime.now(UTC)
    assert made.expiry_problem(now) == ""
    assert "expired" in made.expiry_problem(now + timedelta(days=2))
    assert "clock" in made.expiry_problem(datetime(1970, 1, 2, tzinfo=UTC))
    for_ever, _ = file.create("b", "read")
    assert for_ever.expiry_problem(datetime(1970, 1, 2, tzinfo=UTC)) == ""
    assert for_ever.expiry_problem(now + timedelta(days=36_500)) == ""
