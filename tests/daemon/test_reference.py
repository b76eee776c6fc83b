"""The reference pages say what the code says."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.config import KNOWN
from daemon.diagnostics.metrics import Metrics
from daemon.errors import all_reasons
from daemon.reference import PAGES, main

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("name", PAGES)
def test_the_committed_page_is_the_generated_one(name: str) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == PAGES[name](), f"docs/{name} is out of date: run `make docs`"


def test_every_setting_is_on_the_page() -> None:
    page = PAGES["settings.md"]()
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    written = [name for name, setting in KNOWN.items() if setting.kind != "table" or name.endswith(".options")]
    assert len(rows) == len(written)
    for setting in KNOWN.values():
        assert setting.doc in page
    assert "| `ring_frames` | an integer of 4 to 4096 | `64` | frames |" in page
    assert "| `tokens[].name` | a string of 1 to 100 characters | required |" in page


def test_every_reason_is_on_the_page_with_its_remedy() -> None:
    page = PAGES["errors.md"]()
    reasons = all_reasons()
    assert len({reason.code for reason in reasons}) == len(reasons)
    for reason in reasons:
        assert f"| `{reason.code}` | {reason.remedy} |" in page


def test_every_metric_is_on_the_page() -> None:
    page = PAGES["metrics.md"]()
    for name, kind, sentence, _ in Metrics().documentation():
        assert f"| `{name}` | {kind} |" in page
        assert sentence in page


def test_the_command_writes_the_pages(tmp_path: Path) -> None:
    assert main([str(tmp_path)]) == 0
    assert {path.name for path in tmp_path.iterdir()} == set(PAGES)
