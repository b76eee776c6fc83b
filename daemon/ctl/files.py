"""Files the operator names: read or written with a sentence when that fails."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from daemon.errors import ClientError, ClientReason

MAX_DOCUMENT_BYTES = 1_000_000  # what the daemon takes by default


@contextmanager
def file_sentences(name: str, what: str) -> Iterator[None]:
    """A file system's refusal as a sentence: `what` is 'read' or 'written'."""
    try:
        yield
    except OSError as error:
        raise ClientError(ClientReason.BAD_FILE, f"'{name}' cannot be {what}: {error.strerror or error}") from error


def read_document(name: str) -> dict[str, Any]:
    """The TOML or JSON object in a file, or on standard input for `-`. Raises `ClientError` naming line and column."""
    shown = "standard input" if name == "-" else name
    with file_sentences(shown, "read"), click.open_file(name, "rb") as file:
        raw = file.read(MAX_DOCUMENT_BYTES + 1)
    if len(raw) > MAX_DOCUMENT_BYTES:
        raise ClientError(ClientReason.BAD_FILE, f"'{shown}' is larger than {MAX_DOCUMENT_BYTES} bytes")
    try:
        text = raw.decode("utf-8-sig")
        as_json = name.endswith(".json") or (not name.endswith(".toml") and text.lstrip()[:1] in ("{", "["))
        document = json.loads(text) if as_json else tomllib.loads(text)
        json.dumps(document, allow_nan=False)
    except (ValueError, TypeError, RecursionError) as error:
        raise ClientError(ClientReason.BAD_FILE, f"'{shown}': {error}") from error
    if not isinstance(document, dict):
        raise ClientError(ClientReason.BAD_FILE, f"'{shown}' holds a {type(document).__name__} instead of named fields")
    return document


def writable(out: Path) -> None:
    """Raises `ClientError` when the directory of `out` does not exist."""
    if not out.parent.is_dir():
        raise ClientError(ClientReason.BAD_FILE, f"'{out}' cannot be written: there is no directory '{out.parent}'")
    if out.is_dir():
        raise ClientError(ClientReason.BAD_FILE, f"'{out}' cannot be written: it is a directory")
