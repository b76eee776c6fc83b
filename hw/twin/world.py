"""The world file: how the simulated electrode, in one process, shows itself to the simulated camera in another.

A small memory-mapped file: magic, length and JSON header (parameters, seed, version), a sequence number, then two
slots for the state, each with its CRC. Its only writer fills the slot that is not current, then counts the sequence up,
many times a second. A reader copies the current slot and believes it when the CRC fits: it never sees half a state,
never waits for the writer, and has the last whole state of one that died while writing.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hw.twin.electrode import ParticleState
from hw.twin.settings import SampleOptions

MAGIC = b"PHTWIN\0\1"
FORMAT = 1
SEQUENCE_AT = 8192  # a page's multiple beyond the longest header
SLOTS_AT = SEQUENCE_AT + 64
READ_TRIES = 10  # one fails when the writer comes round twice, 20 ms, within a copy


class WorldError(Exception):
    """The world file is missing, foreign, or of another version."""


@dataclass
class WorldState:
    """The electrode at simulated time `t_s`, which was `host_t_s` (`time.monotonic()`) of the host."""

    t_s: float
    host_t_s: float
    speed: float
    mode: int
    voltage_v: float
    current_ma: float
    closed: bool
    particles: ParticleState


def _dtype(particles: int) -> np.dtype:
    scalars = [(name, "<f8") for name in ("t_s", "host_t_s", "speed", "voltage_v", "current_ma")]
    arrays = [(name, "<f8", (particles,)) for name in ParticleState.FIELDS]
    return np.dtype([*scalars, ("mode", "<i8"), ("closed", "<i8"), *arrays])


def _slot_at(sequence: int, size: int) -> int:
    """Where the slot of a sequence number begins: 8 bytes of CRC, then the state."""
    return SLOTS_AT + (sequence % 2) * (8 + size)


class WorldWriter:
    """Creates the file at `path` in one step (by rename) and owns it until `close`, which removes it."""

    def __init__(self, path: Path, sample: SampleOptions, clock_id: str, state: WorldState) -> None:
        self.path = path
        text = json.dumps({"format": FORMAT, "clock_id": clock_id, "sample": sample.model_dump()}).encode()
        if 16 + len(text) > SEQUENCE_AT:
            raise WorldError(f"the header of {path} is too long")
        self._dtype = _dtype(sample.particles)
        self._block = np.zeros((), self._dtype)
        self._sequence = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            os.ftruncate(handle, _slot_at(0, self._dtype.itemsize) + 2 * (8 + self._dtype.itemsize))
            os.pwrite(handle, MAGIC + len(text).to_bytes(8, "little") + text, 0)
            self._inode = os.fstat(handle).st_ino
            self._map = mmap.mmap(handle, 0)
            self.publish(state)
            os.rename(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
        finally:
            os.close(handle)

    def publish(self, state: WorldState) -> None:
        """Make `state` the current one."""
        block = self._block
        for name in ("t_s", "host_t_s", "speed", "voltage_v", "current_ma", "mode", "closed"):
            block[name] = getattr(state, name)
        for name in ParticleState.FIELDS:
            block[name] = getattr(state.particles, name)
        self._put()

    def _put(self) -> None:
        raw = self._block.tobytes()
        start = _slot_at(self._sequence + 1, len(raw))
        self._map[start : start + 8 + len(raw)] = zlib.crc32(raw).to_bytes(8, "little") + raw
        self._sequence += 1
        self._map[SEQUENCE_AT : SEQUENCE_AT + 8] = self._sequence.to_bytes(8, "little")

    def close(self) -> None:
        """Say so in the block, then remove the file, unless another writer has put its own there. Idempotent."""
        if self._map.closed:
            return
        self._block["closed"] = 1
        self._put()
        self._map.close()
        with contextlib.suppress(FileNotFoundError):
            if os.stat(self.path).st_ino == self._inode:
                os.unlink(self.path)


class WorldReader:
    """Attaches to a world file. Raises `WorldError` when there is none that can be read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except FileNotFoundError:
            raise WorldError(f"there is no simulated world at {path}") from None
        except (OSError, ValueError) as error:
            raise WorldError(f"the simulated world at {path} cannot be read: {error}") from None
        try:
            header = self._header()
            self.sample = SampleOptions.model_validate(header["sample"])
            self.clock_id = str(header["clock_id"])
            self._dtype = _dtype(self.sample.particles)
            if len(self._map) < _slot_at(0, self._dtype.itemsize) + 2 * (8 + self._dtype.itemsize):
                raise WorldError(f"the simulated world at {path} is cut short")
        except BaseException:
            self._map.close()
            raise

    def _header(self) -> dict[str, Any]:
        if self._map[:8] != MAGIC:
            raise WorldError(f"{self.path} is not a simulated world")
        length = int.from_bytes(self._map[8:16], "little")
        try:
            header = json.loads(self._map[16 : 16 + min(length, SEQUENCE_AT)])
            version = header["format"]
        except (ValueError, KeyError, TypeError):
            raise WorldError(f"the header of {self.path} is damaged") from None
        if version != FORMAT:
            raise WorldError(f"{self.path} has format {version}, not {FORMAT}")
        return dict(header)

    def read(self) -> WorldState:
        """The newest whole state. Raises `WorldError` when none could be had."""
        size = self._dtype.itemsize
        for _ in range(READ_TRIES):
            start = _slot_at(int.from_bytes(self._map[SEQUENCE_AT : SEQUENCE_AT + 8], "little"), size)
            raw = self._map[start : start + 8 + size]
            if zlib.crc32(raw[8:]) == int.from_bytes(raw[:8], "little"):
                return self._unpack(np.frombuffer(raw, self._dtype, 1, 8)[0])
        raise WorldError(f"the simulated world at {self.path} holds no whole state")

    def _unpack(self, block: Any) -> WorldState:
        return WorldState(
            t_s=float(block["t_s"]),
            host_t_s=float(block["host_t_s"]),
            speed=float(block["speed"]),
            mode=int(block["mode"]),
            voltage_v=float(block["voltage_v"]),
            current_ma=float(block["current_ma"]),
            closed=bool(block["closed"]),
            particles=ParticleState(*(block[name].copy() for name in ParticleState.FIELDS)),
        )

    def close(self) -> None:
        """Detach; idempotent."""
        self._map.close()
