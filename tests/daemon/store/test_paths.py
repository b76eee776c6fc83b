from __future__ import annotations

import pytest

from daemon.errors import StoreError, StoreReason
from daemon.store.paths import StateLayout


def test_prepare_makes_the_folders_and_nothing_else(tmp_path):
    layout = StateLayout(tmp_path / "a" / "state")
    layout.prepare()
    layout.prepare()
    assert sorted(each.name for each in layout.state_dir.iterdir()) == ["raw", "runs"]
    assert layout.run_path("2026-r.1_x") == layout.state_dir / "runs" / "2026-r.1_x.db"
    assert layout.catalogue.name == "instrument.db"
    assert layout.free_mb() > 0


@pytest.mark.parametrize("run_id", ["", "../other", "a/b", ".hidden", "x" * 129, "a\0b", "a b"])
def test_a_run_id_cannot_leave_the_folder(tmp_path, run_id):
    with pytest.raises(ValueError, match="cannot name a run"):
        StateLayout(tmp_path).run_path(run_id)


def test_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file" / "state", tmp_path / "file"):
        with pytest.raises(StoreError) as caught:
            StateLayout(folder).prepare()
        assert caught.value.reason is StoreReason.NOT_WRITABLE
        assert str(folder) in caught.value.detail


def test_free_space_of_a_folder_that_is_gone(tmp_path):
    with pytest.raises(StoreError):
        StateLayout(tmp_path / "gone").free_mb()
