"""Gathering small batches of frames into chunks of about a second."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from daemon.store.codec import Per, encode_frame_column, encode_particle_column
from daemon.tables import CHUNK_FRAME_COLUMNS, CHUNK_PARTICLE_COLUMNS

MAX_CHUNK_FRAMES = 256  # two and a half seconds at 100 frames/s: offline work fills a chunk in less
MAX_CHUNK_BYTES = 16 << 20  # of arrays; a reader decodes a chunk at a time


@dataclass(frozen=True)
class FrameBatch:
    """N consecutive frames with every column of a chunk, in the columns' own dtypes."""

    frame_columns: dict[str, np.ndarray]
    particle_columns: dict[str, np.ndarray]
    mask_version: int = 1
    """Of the masks that measured all of these frames."""

    @property
    def frames(self) -> int:
        """N."""
        return len(self.frame_columns["frame"])

    @property
    def particles(self) -> int:
        """P."""
        return int(self.particle_columns["contrast"].shape[1])

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(a.nbytes for columns in (self.frame_columns, self.particle_columns) for a in columns.values())


def checked_batch(
    frame_columns: dict[str, np.ndarray], particle_columns: dict[str, np.ndarray], mask_version: int = 1
) -> FrameBatch:
    """A copy of the columns in their stored dtypes. Raises `ValueError` naming a column that lacks or does not fit."""
    frames = len(frame_columns["frame"])
    shape = (frames, *particle_columns["contrast"].shape[1:])
    batch = FrameBatch(
        _checked(frame_columns, CHUNK_FRAME_COLUMNS, (frames,)),
        _checked(particle_columns, CHUNK_PARTICLE_COLUMNS, shape),
        mask_version,
    )
    if not np.isfinite(batch.frame_columns["t_s"]).all():
        raise ValueError("column 't_s' holds a time that is not finite")
    if len(shape) != 2:
        raise ValueError(f"per-particle columns have shape {shape}, expected (frames, particles)")
    return batch


def _checked(given: dict[str, np.ndarray], dtypes: dict[str, str], shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    if given.keys() != dtypes.keys():
        raise ValueError(f"columns missing or unknown: {sorted(given.keys() ^ dtypes.keys())}")
    for name, values in given.items():
        if values.shape != shape:
            raise ValueError(f"column '{name}' has shape {values.shape}, expected {shape}")
    return {name: np.array(given[name], dtype="<" + dtype) for name, dtype in dtypes.items()}


@dataclass(frozen=True)
class EncodedChunk:
    """A chunk ready to be stored; `columns` are (per, name, codec, bytes)."""

    first_frame: int
    frames: int
    particles: int
    t0_s: float
    t1_s: float
    columns: list[tuple[Per, str, str, bytes]]


@dataclass
class ChunkAssembler:
    """Batches that wait for their chunk, each with the tokens to be returned with it."""

    batches: list[FrameBatch] = field(default_factory=list)
    tokens: list[Any] = field(default_factory=list)
    frames: int = 0
    nbytes: int = 0

    def fits(self, batch: FrameBatch) -> bool:
        """False when `batch` must begin a new chunk."""
        if not self.batches:
            return True
        return (
            batch.particles == self.batches[0].particles
            and batch.mask_version == self.batches[0].mask_version
            and self.frames + batch.frames <= MAX_CHUNK_FRAMES
            and self.nbytes + batch.nbytes <= MAX_CHUNK_BYTES
        )

    def add(self, batch: FrameBatch, token: Any) -> None:
        """Let `batch` wait; `token` comes back from `take`."""
        self.batches.append(batch)
        self.tokens.append(token)
        self.frames += batch.frames
        self.nbytes += batch.nbytes

    def take(self) -> tuple[list[FrameBatch], list[Any]]:
        """Everything that waits; the assembler is empty afterwards."""
        taken = self.batches, self.tokens
        self.batches, self.tokens, self.frames, self.nbytes = [], [], 0, 0
        return taken


def encode_chunk(batches: list[FrameBatch]) -> EncodedChunk:
    """One chunk of at least one batch, all of the same particles. Compresses with the interpreter lock released."""
    frame = {name: np.concatenate([b.frame_columns[name] for b in batches]) for name in CHUNK_FRAME_COLUMNS}
    particle = {name: np.concatenate([b.particle_columns[name] for b in batches]) for name in CHUNK_PARTICLE_COLUMNS}
    sigma = particle["contrast_sigma"]
    columns: list[tuple[Per, str, str, bytes]] = []
    columns += (("frame", name, *encode_frame_column(name, values)) for name, values in frame.items())
    columns += (("particle", name, *encode_particle_column(name, values, sigma)) for name, values in particle.items())
    return EncodedChunk(
        first_frame=int(frame["frame"][0]),
        frames=len(frame["frame"]),
        particles=sigma.shape[1],
        t0_s=float(frame["t_s"].min()) + 0.0,  # SQLite has no negative zero
        t1_s=float(frame["t_s"].max()) + 0.0,
        columns=columns,
    )
