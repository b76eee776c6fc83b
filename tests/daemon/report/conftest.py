"""One run and its report, made once: a report takes seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.report.build import report_html
from tests.daemon.report.synthetic_run import SyntheticRun


@pytest.fixture(scope="session")
def run_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of everything, never changed by a test."""
    return SyntheticRun().write(tmp_path_factory.mktemp("report") / "whole.db", source="<script>alert('x')</script>")


@pytest.fixture(scope="session")
def document(run_path: Path) -> str:
    """Its report."""
    return report_html(run_path, None, lambda share: None)
