"""Making a version: what stops it says a sentence and leaves nothing that could be taken for whole."""

from __future__ import annotations

import hashlib
import importlib.machinery
import importlib.util
import json
import shutil
from collections import namedtuple
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "packaging/install-version"
BUILD = {"version": "1.2.3", "digest": "abc", "needs_mb": 1000}
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script with all its places below `tmp_path`, and steps that are recorded instead of run."""
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    loader = importlib.machinery.SourceFileLoader("install_version", str(SCRIPT))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    script = importlib.util.module_from_spec(spec)
    loader.exec_module(script)
    for name, place in (("PACKAGE", "lib"), ("DOCS", "docs"), ("HOME", "opt"), ("CACHE", "cache")):
        setattr(script, name, tmp_path / place)
    script.KERNELS = tmp_path / "cache/kernels"  # type: ignore[attr-defined]
    (tmp_path / "lib").mkdir()
    (tmp_path / "docs").mkdir()
    (tmp_path / "lib/build.json").write_text(json.dumps(BUILD))
    script.done = []  # type: ignore[attr-defined]
    script.run_call = script.call  # type: ignore[attr-defined]

    def call(command: list[str], problem: str, accepted: tuple[int, ...] = (0,)) -> None:
        script.done.append(command)
        if command[1:3] == ["-m", "venv"]:
            Path(command[3]).mkdir(parents=True)
        if command[1] == "seal":
            (tmp_path / "opt/versions" / command[2] / ".complete").touch()

    monkeypatch.setattr(script, "call", call)
    monkeypatch.setattr(script, "warm", lambda place: script.done.append(["warm", str(place)]))
    monkeypatch.setattr(script.shutil, "disk_usage", lambda place: Usage(0, 0, 50_000_000_000))
    return script


def made(script: Any) -> list[str]:
    """The steps, in order."""
    names = {"venv": "environment", "pip": "wheels", "compileall": "bytecode"}
    return [names.get(command[2], "") if command[1] == "-m" else command[0].split("-")[-1] for command in script.done]


def test_the_seal_comes_last(script: Any, tmp_path: Path) -> None:
    script.install()
    assert made(script) == ["environment", "wheels", "bytecode", "warm", "update"]
    assert (tmp_path / "opt/versions/1.2.3/docs").is_dir()


def test_made_already_it_is_left_alone(script: Any) -> None:
    script.install()
    script.done.clear()
    script.install()
    assert script.done == []


def test_another_build_of_it_takes_its_place(script: Any, tmp_path: Path) -> None:
    script.install()
    (tmp_path / "opt/versions/1.2.3/old").touch()
    (tmp_path / "lib/build.json").write_text(json.dumps(BUILD | {"digest": "def"}))
    script.install()
    assert not (tmp_path / "opt/versions/1.2.3/old").exists()


def test_what_was_broken_off_is_made_anew(script: Any, tmp_path: Path) -> None:
    for name in ("1.2.3", ".removing-1.2.3"):
        (tmp_path / "opt/versions" / name / "half").mkdir(parents=True)
    script.install()
    assert [place.name for place in (tmp_path / "opt/versions").iterdir()] == ["1.2.3"]
    assert not (tmp_path / "opt/versions/1.2.3/half").exists()


def test_too_little_room_is_told_before_anything_is_made(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script.shutil, "disk_usage", lambda place: Usage(0, 0, 900_000_000))
    with pytest.raises(script.InstallError, match=r"takes 1000 MB in .*, 900 MB are free\. Make room .*prune --keep 1"):
        script.install()
    assert script.done == []


def test_kernels_that_do_not_compile_leave_it_unsealed(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(place: Path) -> None:
        script.run_call(["sh", "-c", "echo much; echo out of memory; exit 1"], "the kernels could not be compiled")

    monkeypatch.setattr(script, "warm", fail)
    with pytest.raises(script.InstallError, match=r"^the kernels could not be compiled: out of memory\. What was"):
        script.install()
    assert "update" not in made(script)


def test_a_step_that_hangs_is_given_up(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "DEADLINE_S", 0.2)
    with pytest.raises(script.InstallError, match=r"no end within 0\.2 s"):
        script.run_call(["sleep", "60"], "it could not be made")


def test_a_full_disk_is_a_sentence(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(script.shutil, "copytree", fail)
    with pytest.raises(script.InstallError, match=r"No space left on device\. Check the disk"):
        script.install()


def test_kernels_of_versions_that_are_gone_are_swept(script: Any, tmp_path: Path) -> None:
    names = []
    for version in ("1.0", "1.1"):
        place = tmp_path / f"opt/versions/{version}/lib/python3.11/site-packages/kernels"
        place.mkdir(parents=True)
        names.append(f"kernels_{hashlib.sha1(str(place).encode()).hexdigest()}")
        (tmp_path / "cache/kernels" / names[-1]).mkdir(parents=True)
    shutil.rmtree(tmp_path / "opt/versions/1.0")
    script.sweep()
    assert [place.name for place in (tmp_path / "cache/kernels").iterdir()] == [names[1]]


def test_numba_names_them_as_the_sweep_expects(tmp_path: Path) -> None:
    from numba.core.caching import _CacheLocator

    place = tmp_path / "kernels"
    expected = f"kernels_{hashlib.sha1(str(place).encode()).hexdigest()}"
    assert _CacheLocator.get_suitable_cache_subpath(str(place / "x.py")) == expected
