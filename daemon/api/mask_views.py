"""The masks of a run as answers: their versions, outlines, a picture of particle ids. Blocking."""

from __future__ import annotations

import io
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from daemon.api.jsonio import dumps
from daemon.api.media import JSON, PNG
from daemon.errors import MaskError, MaskReason
from daemon.mask_edits import MaskVersion
from daemon.photometry.outlines import outlines_of
from daemon.store.reader import RunReader

LARGEST_GREY = 65_535


def shown(path: Path, run_id: str, version: int | None, media_type: str) -> bytes:
    """The versions; or one of them, as outlines or as a picture. Raises `MaskError` (NO_VERSION), `StoreError`."""
    with RunReader(path) as reader:
        versions = reader.mask_versions()
        if version is None and media_type == JSON:
            return dumps({"run_id": run_id, "versions": [asdict(each) for each in versions]})
        about = _chosen(versions, version, run_id)
        labels = reader.labels(about.version)
        rows = reader.particles()
    assert labels is not None
    if media_type == PNG:
        return _picture(labels, rows)
    size = {"height_px": labels.shape[0], "width_px": labels.shape[1]}
    return dumps({"run_id": run_id, **asdict(about), **size, "outlines": _outlines(labels, rows)})


def _chosen(versions: list[MaskVersion], version: int | None, run_id: str) -> MaskVersion:
    """The version asked for, or the newest. Raises `MaskError` (NO_VERSION)."""
    for about in reversed(versions):
        if version in (None, about.version):
            return about
    raise MaskError(MaskReason.NO_VERSION, f"run '{run_id}' has no version {version or 1} of its masks")


def _outlines(labels: np.ndarray, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = outlines_of(labels)
    return [
        {
            "particle_id": row["particle_id"],
            "parent_id": row["parent_id"],
            "state": row["state"],
            "outline_px": found[row["particle_index"] + 1],
        }
        for row in rows
        if row["particle_index"] + 1 in found
    ]


def _picture(labels: np.ndarray, rows: list[dict[str, Any]]) -> bytes:
    """Sixteen bits a pixel: the id of the particle there, 0 for none, 65535 for ids beyond."""
    ids = np.zeros(max(int(labels.max(initial=0)), len(rows)) + 1, np.int64)
    for row in rows:
        ids[row["particle_index"] + 1] = row["particle_id"]
    sink = io.BytesIO()
    Image.fromarray(np.minimum(ids[labels], LARGEST_GREY).astype(np.uint16)).save(sink, "PNG")
    return sink.getvalue()
