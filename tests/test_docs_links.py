"""Links in the prose lead to files and headings, and the files and tests it names exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")
NAMED = re.compile(r"`((?:daemon|hw|kernels|tests|systemd|packaging|docs)/[\w./*-]+)(?:::(\w+))?`")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def without_code(text: str) -> str:
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)


def anchors(page: Path) -> set[str]:
    """What the headings of a page are called in links to it."""
    headings = re.findall(r"^#+ (.+)$", without_code(page.read_text(encoding="utf-8")), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def broken_links(page: Path) -> list[str]:
    broken = []
    for target in LINK.findall(without_code(page.read_text(encoding="utf-8"))):
        if "://" in target:
            continue
        place, _, anchor = target.partition("#")
        file = (page.parent / place) if place else page
        if not file.is_file() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    return broken


def missing_names(text: str) -> list[str]:
    """Paths that match no file, and tests that no file defines."""
    missing = []
    for path, test in NAMED.findall(text):
        files = [file for file in ROOT.glob(path.rstrip("/")) if file.exists()]
        defined = not test or any(f"def {test}(" in file.read_text(encoding="utf-8") for file in files)
        if not files or not defined:
            missing.append(f"{path}::{test}" if test else path)
    return missing


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    assert broken_links(page) == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_and_tests_named_exist(page: Path) -> None:
    assert missing_names(page.read_text(encoding="utf-8")) == []


def test_broken_links_and_missing_names_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A title, here\n[a](#a-title-here) [b](#nowhere) [c](gone.md) [d](page.md#a-title-here)\n")
    assert broken_links(page) == ["#nowhere", "gone.md"]
    text = "`daemon/gone.py` `daemon/config.py` `tests/test_docs_links.py::test_gone` `tests/kernels/naive_*.py`"
    assert missing_names(text) == ["daemon/gone.py", "tests/test_docs_links.py::test_gone"]


def test_every_page_is_reached_from_the_readme() -> None:
    seen, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop().resolve()
        if page in seen or page.suffix != ".md" or not page.is_file():
            continue
        seen.add(page)
        targets = LINK.findall(without_code(page.read_text(encoding="utf-8")))
        waiting += [page.parent / target.partition("#")[0] for target in targets if "://" not in target]
    lonely = {name_of(page) for page in PAGES} - {name_of(page) for page in seen}
    assert lonely <= {"CHANGELOG.md"}


def test_the_pictures_of_the_readme_are_small() -> None:
    pictures = list((ROOT / "docs" / "images").iterdir())
    assert pictures
    assert all(picture.stat().st_size < 300_000 for picture in pictures)
