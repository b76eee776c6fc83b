"""The camera's stream endpoint: leader, payload and trailer of each frame in transfers as the host set them."""

from __future__ import annotations

import struct
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from hw.twin.u3v.frames import CODES, Picture, Source, View
from hw.twin.u3v.registers import INCONSISTENT, NOT_ALIGNED, STREAM_HALTED, TRANSFER_SIZES, Memory, Refused
from hw.twin.u3v.timing import Exposure, Exposures
from hw.twin.usb.device import Gone, Stall

LEADER_MAGIC, TRAILER_MAGIC = 0x4C563355, 0x54563355
IMAGE, IMAGE_WITH_CHUNKS = 0x0001, 0x4001
DATA_DISCARDED = 0xA100
LEADER_BYTES, TRAILER_BYTES, CHUNK_TRAILER_BYTES = 52, 32, 36
LOOK_S = 0.001
"""Between two looks whether a picture is drawn."""
FAULTS = (
    "short_frame", "stall", "unplug_mid_frame", "wrong_size", "constant_frames", "repeated_frames", "trailer_discarded",
    "lost_trailer", "lost_frames",
)  # fmt: skip

Buffer = bytes | memoryview


@dataclass
class Frame:
    """What goes over the wire for one exposure."""

    exposure: Exposure
    begin_s: float
    payload: memoryview
    width_px: int
    height_px: int
    told_height_px: int
    status: int = 0


class Stream:
    """Sends frames while enabled; used by one thread. A live source draws in a thread, one frame at a time."""

    def __init__(self, memory: Memory, source: Source, exposures: Exposures, bytes_per_s: float, counts: Any) -> None:
        self._memory, self._source, self.exposures = memory, source, exposures
        self.bytes_per_s = bytes_per_s
        """Of the wire; 0: no bound."""
        self._counts = counts
        self.halted = False
        self.enabled = False
        self.faults: dict[str, dict[str, Any]] = {}
        self._script: deque[Buffer | type[Exception]] = deque()
        self._free_s = 0.0
        self._drawing: tuple[Exposure, View, Future[Picture | None]] | None = None
        self._artist = ThreadPoolExecutor(1, "camera") if source.live else None
        self._last: Picture | None = None

    # -- registers ------------------------------------------------------------

    def required(self, view: View, chunk_bytes: int) -> dict[str, int]:
        """Sizes that the stream's registers tell a host."""
        bits = CODES[view.pixel_format] >> 16 & 0xFF
        image = (view.width_px * view.height_px * bits + 7) // 8
        trailer = CHUNK_TRAILER_BYTES if chunk_bytes else TRAILER_BYTES
        return {"RequiredPayload": image + chunk_bytes, "RequiredLeader": LEADER_BYTES, "RequiredTrailer": trailer}

    def enable(self, required: dict[str, int], alignment: int) -> None:
        """The host sets the enable bit. Raises `Refused` when the sizes that it set do not fit."""
        sizes = {name: self._memory[name] for name in TRANSFER_SIZES}
        if self.halted:
            raise Refused(STREAM_HALTED)
        if any(size % alignment for name, size in sizes.items() if name != "TransferCount"):
            raise Refused(NOT_ALIGNED)
        room = sizes["TransferSize"] * sizes["TransferCount"] + sizes["FinalSize1"] + sizes["FinalSize2"]
        if (
            room < required["RequiredPayload"]
            or sizes["MaxLeader"] < required["RequiredLeader"]
            or sizes["MaxTrailer"] < required["RequiredTrailer"]
        ):
            raise Refused(INCONSISTENT)
        self._sizes = [sizes["TransferSize"]] * sizes["TransferCount"]
        self._sizes += [sizes[name] for name in ("FinalSize1", "FinalSize2") if sizes[name]]
        self.enabled = True
        self._script.clear()

    def disable(self) -> None:
        """The host clears the bit: a frame under way ends where it is."""
        self.enabled = False
        self._script.clear()

    def set_halted(self, halted: bool) -> None:
        """The endpoint was halted, or cleared: a frame under way is dropped."""
        self.halted = halted
        self._script.clear()

    def leave_behind(self, sizes: list[int], view: View) -> None:
        """As a host leaves a camera that dies in the middle of a frame."""
        self.enabled = True
        self._sizes = sizes
        payload = memoryview(bytes(sum(sizes)))
        frame = Frame(Exposure(7, 0.0, 0.0, 0), 0.0, payload, view.width_px, view.height_px, view.height_px)
        self._write_script(frame, view, b"")
        self._script.popleft()

    # -- frames ------------------------------------------------------------

    def transfer(self, now_s: float, view: View, chunk_ids: dict[str, int], gain_db: float) -> Buffer | None:
        """The next transfer; None when there is none yet. Raises `Stall`, `Gone` where a fault was ordered."""
        if not self.enabled:
            return None
        if not self._script and not self._next_frame(now_s, view, chunk_ids, gain_db):
            return None
        if now_s < self._free_s:
            return None
        part = self._script.popleft()
        if isinstance(part, type):
            self._script.clear()
            raise part
        if self.bytes_per_s:
            self._free_s = max(self._free_s, now_s - LOOK_S) + len(part) / self.bytes_per_s
        self._counts["bytes sent"] += len(part)
        return part

    def due_s(self, now_s: float) -> float | None:
        """When `transfer` is worth asking again."""
        if not self.enabled:
            return None
        if self._script:
            return self._free_s
        return now_s + LOOK_S if self._drawing is not None else self.exposures.due_s()

    def _next_frame(self, now_s: float, view: View, chunk_ids: dict[str, int], gain_db: float) -> bool:
        fault = self._fault("lost_frames")
        if fault is not None:
            self.exposures.skip(int(fault.get("frames", 1)))
        drawn = self._drawn(now_s, view)
        if drawn is None:
            return False
        exposure, picture = drawn
        picture = self._spoil_picture(picture)
        frame = Frame(exposure, picture.begin_s, picture.payload, view.width_px, view.height_px, view.height_px)
        chunks = b""
        if chunk_ids:
            chunks = _chunks(frame, chunk_ids, gain_db)
        self._spoil_frame(frame, view)
        self._write_script(frame, view, chunks)
        self._spoil_script()
        self._counts["frames sent"] += 1
        return True

    def _drawn(self, now_s: float, view: View) -> tuple[Exposure, Picture] | None:
        """The next exposure with its picture, as soon as both are there."""
        if self._drawing is None:
            exposure = self.exposures.take(now_s)
            if exposure is None:
                return None
            arguments = (exposure.block_id, exposure.due_s, exposure.exposure_s, view)
            if self._artist is None:
                picture = self._source.picture(*arguments)
                return None if picture is None else (exposure, picture)
            self._drawing = (exposure, view, self._artist.submit(self._source.picture, *arguments))
        exposure, drawn_for, future = self._drawing
        if not future.done():
            return None
        self._drawing = None
        picture = future.result()
        if picture is None or drawn_for != view:
            self.exposures.lost += 1
            return None
        return exposure, picture

    def _write_script(self, frame: Frame, view: View, chunks: bytes) -> None:
        payload = frame.payload if not chunks else memoryview(bytes(frame.payload) + chunks)
        block, height = frame.exposure.block_id, frame.told_height_px
        kind = IMAGE_WITH_CHUNKS if chunks else IMAGE
        leader = struct.pack(
            "<IHHQHHQIIIIIHH", LEADER_MAGIC, 0, LEADER_BYTES, block, 0, kind, max(int(frame.begin_s * 1e9), 0),
            CODES[view.pixel_format], frame.width_px, height, view.offset_x_px, view.offset_y_px, 0, 0,
        )  # fmt: skip
        size = CHUNK_TRAILER_BYTES if chunks else TRAILER_BYTES
        trailer = struct.pack(
            "<IHHQHHQI", TRAILER_MAGIC, 0, size, block, frame.status, 0, len(payload), frame.height_px
        ) + bytes(size - TRAILER_BYTES)
        self._script.append(leader)
        at = 0
        for room in self._sizes:
            part = payload[at : at + room]
            self._script.append(part)
            at += len(part)
            if len(part) < room:  # a short transfer, or one of no length, ends the payload
                break
        self._script.append(trailer)

    # -- faults ------------------------------------------------------------

    def _fault(self, name: str) -> dict[str, Any] | None:
        fault = self.faults.get(name)
        if fault is not None:
            fault["times"] -= 1
            if fault["times"] <= 0:
                del self.faults[name]
        return fault

    def _spoil_picture(self, picture: Picture) -> Picture:
        if self._last is not None and self._fault("repeated_frames") is not None:
            picture = replace(picture, payload=self._last.payload)
        if self._fault("constant_frames") is not None:
            picture = replace(picture, payload=memoryview(bytes([0x55]) * len(picture.payload)))
        self._last = picture
        return picture

    def _spoil_frame(self, frame: Frame, view: View) -> None:
        if (fault := self._fault("short_frame")) is not None:
            whole = len(frame.payload)
            frame.payload = frame.payload[: int(fault.get("bytes", whole // 2))]
            frame.height_px = frame.height_px * len(frame.payload) // whole
        if self._fault("wrong_size") is not None:
            frame.payload = frame.payload[: len(frame.payload) // 2]
            frame.height_px = frame.told_height_px = view.height_px // 2
        if self._fault("trailer_discarded") is not None:
            frame.status = DATA_DISCARDED

    def _spoil_script(self) -> None:
        if self._fault("stall") is not None:
            self._script.insert(2, Stall)
        if self._fault("unplug_mid_frame") is not None:
            self._script.insert(2, Gone)
        if self._fault("lost_trailer") is not None:
            self._script.pop()

    def close(self) -> None:
        """End the thread; idempotent."""
        if self._artist is not None:
            self._artist.shutdown(wait=True)


CHUNK_IDS = {"Image": 0x01, "FrameID": 0x10, "Timestamp": 0x11, "ExposureTime": 0x12, "Gain": 0x13}
CHUNK_IDS["LineStatusAll"] = 0x14
CHUNK_SIZES = {"FrameID": 8, "Timestamp": 8, "ExposureTime": 8, "Gain": 8, "LineStatusAll": 4}
CHUNK_FOOTER_BYTES = 8


def chunk_bytes(names: list[str]) -> int:
    """How much longer payloads are with these chunks beside the image's own footer."""
    return CHUNK_FOOTER_BYTES + sum(CHUNK_SIZES[name] + CHUNK_FOOTER_BYTES for name in names)


def _chunks(frame: Frame, ids: dict[str, int], gain_db: float) -> bytes:
    """What follows the image: each chunk's data, then its id and size, little-endian."""
    exposure = frame.exposure
    values = {
        "FrameID": struct.pack("<Q", exposure.block_id),
        "Timestamp": struct.pack("<Q", max(int(frame.begin_s * 1e9), 0)),
        "ExposureTime": struct.pack("<d", exposure.exposure_s * 1e6),
        "Gain": struct.pack("<d", gain_db),
        "LineStatusAll": struct.pack("<I", exposure.lines),
    }
    whole = struct.pack("<II", ids["Image"], len(frame.payload))
    for name, data in values.items():
        if name in ids:
            whole += data + struct.pack("<II", ids[name], len(data))
    return whole
