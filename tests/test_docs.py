"""The hand-written pages name only what exists."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.cell.plan import plan_experiment
from daemon.config import KNOWN, load_settings
from daemon.ctl.app import COMMANDS
from daemon.diagnostics.checks.table import check_classes
from daemon.diagnostics.metrics import Metrics
from daemon.errors import all_reasons
from daemon.recipe import Recipe
from daemon.schema import generic
from daemon.tables import ROW_TABLES
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
    ".npz",
    ".txt",
    ".yml",
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


def field_pages() -> str:
    return "".join(page.read_text(encoding="utf-8") for page in (DOCS / "field").glob("*.md"))


def test_what_the_field_meets_has_its_line_in_the_field_pages() -> None:
    text = field_pages()
    parts = ("camera", "cell", "usb", "driver", "engine", "service", "store", "run", "api", "client", "config")
    met = [code for code in CODES if code.split(".")[0] in parts]
    assert [code for code in sorted(met) if f"`{code}`" not in text] == []


def test_checks_named_in_the_field_pages_exist_and_every_check_is_named() -> None:
    names = {kind.name for kind, _ in check_classes()}
    text = field_pages()
    named = set(re.findall(r"self-test(?:'s|:) `(\w+)`", text))
    assert named
    assert named <= names
    assert [name for name in sorted(names) if f"`{name}`" not in text] == []


def test_every_field_page_is_found_from_the_first() -> None:
    linked = set(re.findall(r"\]\((\w+\.md)\)", (DOCS / "field/README.md").read_text(encoding="utf-8")))
    assert {page.name for page in (DOCS / "field").glob("*.md")} - linked == {"README.md"}


def test_every_metric_is_told_by_some_part_of_the_daemon() -> None:
    """A metric that nothing sets would be documented and always 0."""
    product = [path for path in (DOCS.parent / "daemon").rglob("*.py") if path.name != "metrics.py"]
    text = "".join(path.read_text(encoding="utf-8") for path in product)
    setters = [name for name in vars(Metrics) if not name.startswith("_") and name not in ("text", "documentation")]
    assert [name for name in setters if not re.search(rf"metrics\.{name}\b", text)] == []


def test_recipes_of_the_pages_may_be_run_by_the_simulated_instrument() -> None:
    cell = load_settings(None, simulate=True, environ={}).settings.cell
    found = []
    for page in PAGES:
        for language, block in re.findall(r"```(json|toml)\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            read = json.loads if language == "json" else tomllib.loads
            if "steps" in block and "experiment" in (document := read(block)):
                found.append(page.name)
                experiment = Recipe.model_validate(document).experiment
                assert experiment is not None
                plan_experiment(experiment, cell, None)
    assert sorted(found) == ["api.md", "photometryctl.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_tables_are_whole(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for table in re.findall(r"(?:^\|.*\n?)+", text, flags=re.MULTILINE):
        assert re.match(r"\|.*\n\|[ :|-]+\|$", table, flags=re.MULTILINE), table


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_nobody_is_told_to_read_the_store_with_a_program_that_may_write_to_it(page: Path) -> None:
    for command in re.findall(r"sqlite3 [^`\n]*\bselect\b", page.read_text(encoding="utf-8")):
        assert command.startswith("sqlite3 -readonly "), command


def test_commands_and_tables_that_remedies_name_exist() -> None:
    remedies = " ".join(reason.remedy for reason in all_reasons())
    assert set(re.findall(r"`photometryctl ([a-z-]+)", remedies)) <= set(COMMANDS)
    assert "calibrations" in (named := set(re.findall(r"`photometryctl table (\w+)", remedies)))
    assert named <= set(ROW_TABLES)
