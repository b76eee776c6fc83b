"""Texts of variable length in an HDF5 file, read by a process of their own.

A damaged heap sends HDF5 1.14 into a loop without end inside one call, which no thread can leave; a process can be
ended.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import h5py

from hw.errors import RecordingError, RecordingReason

DEADLINE_S = 20.0  # a healthy file takes half a second, most of which is importing h5py
_READ = """
import json, sys, h5py
with h5py.File(sys.argv[1], "r", locking=False) as file:
    found = {name: file.attrs[name] for name in sys.argv[2:]}
texts = {name: text.decode() if isinstance(text, bytes) else str(text) for name, text in found.items()}
print(json.dumps(texts))
"""


def attributes(path: Path, file: h5py.File, names: Collection[str]) -> dict[str, Any]:
    """Those of `names` that the file has, with their values. Raises `RecordingError` (UNREADABLE) for damaged texts."""
    present = [name for name in sorted(names) if name in file.attrs]
    texts = [name for name in present if _varies(file.attrs.get_id(name).get_type())]
    found = _texts(path, texts) if texts else {}
    return {name: found[name] if name in found else file.attrs[name] for name in present}


def _varies(kind: Any) -> bool:
    return isinstance(kind, h5py.h5t.TypeVlenID) or (isinstance(kind, h5py.h5t.TypeStringID) and kind.is_variable_str())


def _texts(path: Path, names: list[str]) -> dict[str, Any]:
    command = [sys.executable, "-I", "-c", _READ, str(path), *names]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=DEADLINE_S, check=False, stdin=subprocess.DEVNULL
        )
        texts = json.loads(done.stdout) if done.returncode == 0 else None
    except subprocess.TimeoutExpired:
        raise _damaged(path, names, f"reading them had no end within {DEADLINE_S:g} s") from None
    except ValueError:
        texts = None
    if texts is None:
        said = done.stderr.strip().splitlines()
        raise _damaged(path, names, said[-1][:200] if said else f"reading them ended with {done.returncode}")
    return texts


def _damaged(path: Path, names: list[str], why: str) -> RecordingError:
    detail = f"the attributes {', '.join(names)} of '{path.name}' are damaged: {why}"
    return RecordingError(RecordingReason.UNREADABLE, detail)
