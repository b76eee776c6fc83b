"""Reading the kernel's small files; what is absent, denied or no number is None."""

from __future__ import annotations

from pathlib import Path

MAX_BYTES = 4096


def text(path: Path) -> str | None:
    """The file's text without blanks around it; None when it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES).decode("utf-8", "replace").strip()
    except OSError:
        return None


def number(path: Path, base: int = 10) -> int | None:
    """The file's number; None when it holds none. `base` 0 takes what the prefix says."""
    try:
        return int(text(path) or "", base)
    except ValueError:
        return None
