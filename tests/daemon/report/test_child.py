from __future__ import annotations

import pytest

from daemon.errors import StoreError, StoreReason
from daemon.report.build import report_html
from daemon.report.child import report_in_child
from tests.daemon.report.synthetic_run import SyntheticRun


def test_the_childs_report_is_the_same(tmp_path):
    path, told = SyntheticRun(particles=4, frames=200, cell=False).write(tmp_path / "r.db"), []
    report_in_child(path, tmp_path / "r.html", (2,), told.append)
    assert (tmp_path / "r.html").read_text() == report_html(path, [2], lambda share: None)
    assert told == sorted(told) and told[-1] == 1.0


def test_its_refusal_is_ours(tmp_path):
    with pytest.raises(StoreError) as caught:
        report_in_child(tmp_path / "none.db", tmp_path / "r.html", (), lambda share: None)
    assert caught.value.reason is StoreReason.NOT_A_RUN and "none.db" in caught.value.detail
