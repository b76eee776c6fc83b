"""Axial bins as rows of the run file: means over blocks of a quarter of a second, a second of them a row.

Blobs are as in `daemon.store.codec`: times and drift as they are, sigma rounded to 8 bits of mantissa, bins in steps of
a sixteenth of their noise or less. The CRC-32 of a row is over all of them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from daemon.store.codec import checksum, decode_column, encode_particle_column, matches, pack_array, unpack_array
from daemon.store.rows import replace_rows, to_json

BINS = 8
DRIFT = 5
AXES_COLUMNS = ("particle_id", "axis_deg", "length_px", "axial_unknown_why", "shift_unknown_why", "further")
_BOUND = ("t0_s", "t1_s", "blocks", "particles", "t_s", "drift", "sigma")


@dataclass(frozen=True)
class AxialBlocks:
    """n blocks of P particles, by time; NaN for particles without an axis, or that came later."""

    t_s: np.ndarray
    """(n,) mean time of the frames in each."""
    drift: np.ndarray
    """(n, 5) px that registration did not see: y, x, and the covariance yy, yx, xx."""
    sigma: np.ndarray
    """(n, P) float32 of the block's mean contrast."""
    bins: np.ndarray
    """(n, P, 8) float32 eighths of the area along the axis, shares of F0."""


def insert_axes(conn: sqlite3.Connection, rows: Iterable[dict[str, Any]]) -> None:
    """A later row of the same particle replaces the earlier; `further` is kept as JSON."""
    stored = ({**row, "further": None if row["further"] is None else to_json(row["further"])} for row in rows)
    replace_rows(conn, "axes", AXES_COLUMNS, stored)


def insert_axial(conn: sqlite3.Connection, rows: Iterable[dict[str, Any]]) -> None:
    """Consecutive blocks: `t_s` (n,), `drift` (n, 5), `sigma` (n, P) and `bins` (n, P, 8)."""
    replace_rows(conn, "axial", (*_BOUND, "bins", "crc32"), map(_row, rows))


def _row(given: dict[str, Any]) -> dict[str, Any]:
    t_s, sigma, bins = given["t_s"], given["sigma"], given["bins"]
    blocks, particles = sigma.shape
    # a bin holds about an eighth of the variance
    own = np.repeat(sigma / np.sqrt(BINS), BINS, axis=1)
    row: dict[str, Any] = {
        "t0_s": float(t_s[0]), "t1_s": float(t_s[-1]), "blocks": blocks, "particles": particles,
        "t_s": pack_array(np.asarray(t_s, np.float64)), "drift": pack_array(np.asarray(given["drift"], np.float32)),
        "sigma": encode_particle_column("contrast_sigma", sigma, sigma)[1],
    }  # fmt: skip
    row["bins"] = encode_particle_column("contrast", bins.reshape(blocks, -1), own)[1]
    return row | {"crc32": checksum(row["bins"], *(row[name] for name in _BOUND))}


def is_sound(row: dict[str, Any]) -> bool:
    """Whether a stored row matches its CRC."""
    return matches(row["bins"], row["crc32"], *(row[name] for name in _BOUND))


def axial_blocks(rows: Sequence[dict[str, Any]], indices: Sequence[int] | np.ndarray | None) -> AxialBlocks:
    """Blocks of stored rows, of the particles at `indices`; damaged rows are left out. Raises `StoreError`."""
    sound = [row for row in rows if is_sound(row)]
    wide = max((row["particles"] for row in sound), default=0)
    wanted = np.arange(wide) if indices is None else np.asarray(indices, np.int64)
    t_s, drift = [np.empty(0)], [np.empty((0, DRIFT))]
    sigma = [np.empty((0, len(wanted)), np.float32)]
    bins = [np.empty((0, len(wanted), BINS), np.float32)]
    for row in sound:
        blocks, particles = row["blocks"], row["particles"]
        t_s.append(unpack_array("axial", row["t_s"], "float64", (blocks,)))
        drift.append(unpack_array("axial", row["drift"], "float32", (blocks, DRIFT)).astype(float))
        each = decode_column("particle", "contrast_sigma", "rounded", row["sigma"], (blocks, particles))
        sigma.append(_at(each, wanted))
        each = decode_column("particle", "contrast", "steps", row["bins"], (blocks, particles * BINS))
        bins.append(_at(each.reshape(blocks, particles, BINS), wanted))
    return AxialBlocks(*(np.concatenate(parts) for parts in (t_s, drift, sigma, bins)))


def _at(values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Columns at `wanted`; NaN for particles that came later."""
    out = np.full((len(values), len(wanted), *values.shape[2:]), np.nan, np.float32)
    present = wanted < values.shape[1]
    out[:, present] = values[:, wanted[present]]
    return out
