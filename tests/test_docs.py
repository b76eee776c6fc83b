"""The hand-written pages name only what exists."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.config import KNOWN
from daemon.diagnostics.checks.table import check_classes
from daemon.diagnostics.metrics import Metrics
from daemon.errors import all_reasons
from daemon.schema import generic
from tests.packaging.updating import tool

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
CODES = {reason.code for reason in (*all_reasons(), *tool.Reason)}
FIRST_WORDS = {code.split(".")[0] for code in CODES} | {name.split(".")[0] for name in KNOWN}
SUFFIXES = {
    ".md",
    ".toml",
    ".db",
    ".py",
    ".h5",
    ".tif",
    ".gz",
    ".json",
    ".jsonl",
    ".rules",
    ".service",
    ".png",
    ".html",
}


def quoted(page: Path) -> Iterator[str]:
    """What stands between single back-ticks outside code blocks."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    yield from re.findall(r"`([^`\n]+)`", text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        assert "://" in target or (page.parent / target).exists(), target


@pytest.mark.parametrize("page", sorted((DOCS / "field").glob("*.md")), ids=lambda page: page.name)
def test_codes_settings_and_metrics_exist(page: Path) -> None:
    metrics = {name for name, *_ in Metrics().documentation()}
    for word in quoted(page):
        if re.fullmatch(r"[a-z]+(\.[a-z_]+)+", word) and Path(word).suffix not in SUFFIXES:
            assert word.split(".")[0] in FIRST_WORDS, word
            assert word in CODES or generic(word) in KNOWN, word
        if word.startswith("instrument_"):
            assert word in metrics, word


def test_every_device_fault_has_its_line_in_the_field_pages() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in (DOCS / "field").glob("*.md"))
    devices = [code for code in CODES if code.startswith(("camera.", "cell."))]
    assert [code for code in sorted(devices) if f"`{code}`" not in text] == []


def test_checks_named_in_the_field_pages_exist() -> None:
    names = {kind.name for kind, _ in check_classes()}
    text = "".join(page.read_text(encoding="utf-8") for page in (DOCS / "field").glob("*.md"))
    named = set(re.findall(r"self-test's `(\w+)`", text)) | set(re.findall(r"self-test: `(\w+)`", text))
    assert named
    assert named <= names
