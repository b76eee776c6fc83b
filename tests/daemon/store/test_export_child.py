from __future__ import annotations

import errno
import json
import zipfile

import pytest

from daemon.errors import StoreError, StoreReason
from daemon.store.export import export_run
from daemon.store.export_child import export_in_child, zip_directory
from tests.daemon.report.synthetic_run import SyntheticRun
from tests.daemon.store.helpers import damaged_copy


@pytest.mark.parametrize("file_format", ["csv", "parquet"])
def test_the_zip_holds_what_an_export_writes(tmp_path, file_format):
    run, shares = SyntheticRun(particles=4, frames=200).write(tmp_path / "r.db"), []
    options = {"format": file_format, "tables": ["traces", "particles"], "particles": [1, 2], "from_s": 0.5}
    written = export_run(run, tmp_path / "here", **options)
    (tmp_path / "zip").mkdir()
    left_out = export_in_child(run, tmp_path / "zip" / "r.zip", options, shares.append)
    assert left_out == {"corrupt_chunks": 0, "damaged_rows": {}}
    with zipfile.ZipFile(tmp_path / "zip" / "r.zip") as archive:
        inside = {name: archive.read(name) for name in archive.namelist()}
    assert inside == {path.name: path.read_bytes() for path in written.values()} and len(inside) == 2
    assert [path.name for path in (tmp_path / "zip").iterdir()] == ["r.zip"]
    assert shares == sorted(shares)


def test_an_archive_that_lacks_something_says_so(tmp_path):
    run = damaged_copy(SyntheticRun(particles=4, frames=300).write(tmp_path / "whole.db"), tmp_path / "r.db")
    left_out = export_in_child(run, tmp_path / "r.zip", {"tables": ["frames"]}, lambda share: None)
    assert left_out == {"corrupt_chunks": 1, "damaged_rows": {}}
    with zipfile.ZipFile(tmp_path / "r.zip") as archive:
        assert sorted(archive.namelist()) == ["frames.parquet", "left-out.json"]
        assert json.loads(archive.read("left-out.json")) == {"run": "r.db"} | left_out


def test_its_refusal_is_ours(tmp_path):
    run = SyntheticRun(particles=4, frames=200).write(tmp_path / "r.db")
    with pytest.raises(StoreError) as caught:
        export_in_child(run, tmp_path / "r.zip", {"particles": [99]}, lambda share: None)
    assert caught.value.reason is StoreReason.NO_PARTICLE and "99" in caught.value.detail
    assert not (tmp_path / "r.zip").exists()


def test_a_disk_that_fills_under_the_archive_is_named(tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "traces.csv").write_text("t_s\n")
    monkeypatch.setattr(zipfile.ZipFile, "write", full)
    with pytest.raises(StoreError) as caught:
        zip_directory(tmp_path / "tables", tmp_path / "r.zip", lambda share: None)
    assert caught.value.reason is StoreReason.DISK_FULL and "r.zip" in caught.value.detail
