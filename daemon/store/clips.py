"""Clips as rows of the run file: a particle's raw pixels around a step."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from daemon.engine.measures import Clip
from daemon.store.codec import checksum, matches, pack_array, unpack_array
from daemon.store.rows import replace_rows, to_json
from daemon.tables import CLIPS


@dataclass(frozen=True)
class StoredClip:
    """A clip as it was stored; `pixels` (L, h, w) uint16 DN at `t_s` (L,)."""

    clip_id: int
    particle_id: int
    onset_frame: int
    y0_px: int
    x0_px: int
    t_s: np.ndarray
    pixels: np.ndarray


def insert_clips(conn: sqlite3.Connection, clips: Iterable[tuple[int, Clip]]) -> None:
    """Clips with the ids of their particles, under the next ids."""
    replace_rows(conn, "clips", (*CLIPS[1:], "t_s", "pixels", "crc32"), map(_row, clips))


def _row(of: tuple[int, Clip]) -> dict[str, Any]:
    particle_id, clip = of
    looks, height, width = clip.pixels.shape
    packed = pack_array(clip.pixels)
    times = to_json(clip.t_s)
    return {
        "particle_id": particle_id, "onset_frame": clip.onset_frame, "t0_s": float(clip.t_s[0]),
        "t1_s": float(clip.t_s[-1]), "y0_px": clip.y0_px, "x0_px": clip.x0_px, "looks": looks, "height": height,
        "width": width, "t_s": times, "pixels": packed, "crc32": checksum(packed, particle_id, times),
    }  # fmt: skip


def clip_of(row: dict[str, Any]) -> StoredClip | None:
    """The clip of a row; None when it is damaged."""
    if not matches(row["pixels"], row["crc32"], row["particle_id"], row["t_s"]):
        return None
    shape = (row["looks"], row["height"], row["width"])
    pixels = unpack_array("clip", row["pixels"], "uint16", shape)
    place = (row["onset_frame"], row["y0_px"], row["x0_px"])
    return StoredClip(row["clip_id"], row["particle_id"], *place, np.array(json.loads(row["t_s"]), float), pixels)
