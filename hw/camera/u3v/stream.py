"""Frames of a USB3 Vision camera: its stream registers, and the transfers that end in the lent slots.

A frame is a leader, its payload, and a trailer, each a transfer or several (AIA USB3 Vision 1.0, section 5). What of
the payload fills whole units of the camera's alignment ends in the slot itself; the rest, and chunks behind the image,
in memory of the driver, from which the image's last bytes are copied. So a slot is as long as the image.
"""

from __future__ import annotations

import struct
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hw.camera.u3v import registers
from hw.camera.u3v.gencp import GenCp
from hw.camera.u3v.registers import StreamNeeds
from hw.usb.bus import Endpoint
from hw.usb.device import UsbDevice
from hw.usb.errors import UsbError, UsbReason
from hw.usb.queue import CANCELLED, BulkQueue, Done

LEADER_MAGIC, TRAILER_MAGIC = 0x4C563355, 0x54563355  # "U3VL", "U3VT"
LEADER = struct.Struct("<IHHQHHQIIIIIHH")
TRAILER = struct.Struct("<IHHQHHQI")
LEADER_BYTES, TRAILER_BYTES = 50, 32  # some cameras leave the last reserved field out
IMAGE, IMAGE_AND_CHUNKS = 0x0001, 0x4001
STATUS = {0xA100: "discarded", 0xA101: "overrun"}
MOST_TRANSFER_BYTES = 8 << 20
MOST_HEAD_BYTES = 1 << 20  # the largest alignment known is 1024
MOST_PAYLOAD_BYTES = 1 << 30


@dataclass(frozen=True)
class ImageFormat:
    """What a leader must say: the PFNC code and the geometry that were set."""

    code: int
    width_px: int
    height_px: int
    image_bytes: int


@dataclass(frozen=True)
class Layout:
    """How a frame is cut into transfers; sizes as the stream registers want them."""

    leader_bytes: int
    transfer_bytes: int
    transfers: int
    final_1_bytes: int
    final_2_bytes: int
    trailer_bytes: int
    body_bytes: int
    """Of the payload that ends in the slot; what is behind it, in the driver's memory."""

    @property
    def frame_bytes(self) -> int:
        """Of all transfers."""
        payload = self.transfers * self.transfer_bytes + self.final_1_bytes + self.final_2_bytes
        return self.leader_bytes + payload + self.trailer_bytes

    @property
    def payload(self) -> Iterator[int]:
        """Lengths of the payload's transfers, in order."""
        yield from [self.transfer_bytes] * self.transfers
        yield from (size for size in (self.final_1_bytes, self.final_2_bytes) if size)


def plan(needs: StreamNeeds, image_bytes: int, most_bytes: int, packet_bytes: int) -> Layout:
    """The transfers of a frame. `most_bytes` bounds one; all are multiples of the camera's alignment.

    Raises `UsbError` (PROTOCOL) when the payload cannot hold the image, or is more than any camera's.
    """
    if max(needs.alignment, needs.leader_bytes, needs.trailer_bytes) > MOST_HEAD_BYTES:
        raise UsbError(UsbReason.PROTOCOL, "the camera wants leaders, trailers or units that no camera needs")
    if needs.payload_bytes > MOST_PAYLOAD_BYTES:
        raise UsbError(UsbReason.PROTOCOL, f"the camera says that a frame has {needs.payload_bytes} bytes")
    if needs.payload_bytes < image_bytes:
        detail = f"the camera's frame has {needs.payload_bytes} bytes, its image needs {image_bytes}"
        raise UsbError(UsbReason.PROTOCOL, detail)
    align = needs.alignment

    def up(size: int) -> int:
        return -(-size // align) * align

    body = image_bytes // align * align
    most = max(most_bytes // align * align, align)
    size = min(body, most)
    count, rest = divmod(body, size) if size else (0, 0)
    tail = up(needs.payload_bytes - body)
    if not count:
        size, count, tail = tail, 1, 0
    finals = [one for one in (rest, tail) if one] + [0, 0]
    leader, trailer = up(max(needs.leader_bytes, packet_bytes)), up(max(needs.trailer_bytes, packet_bytes))
    return Layout(leader, size, count, finals[0], finals[1], trailer, body)


@dataclass(frozen=True)
class Frame:
    """One whole frame, in the slot of that number."""

    number: int
    block_id: int
    timestamp_ns: int
    """The camera's clock."""
    host_t_s: float
    chunks: bytes
    """What lies behind the image, padding included; empty when nothing does."""


class OutOfStep(UsbError):
    """Transfers no longer hold what they were queued for; the stream must begin anew."""

    def __init__(self, detail: str) -> None:
        super().__init__(UsbReason.PROTOCOL, detail)


@dataclass
class _Slot:
    """Where a frame's parts end."""

    image: np.ndarray
    leader: np.ndarray
    tail: np.ndarray
    trailer: np.ndarray


class Stream:
    """The stream interface of an open camera. One thread's.

    `counts`: ``frame``, and of frames that are dropped here why: ``short``, ``discarded``, ``overrun``, ``status``,
    ``other format``; ``dirty``: it was found streaming. Every method raises `UsbError`.
    """

    def __init__(self, device: UsbDevice, port: GenCp, stream: int, endpoint: Endpoint) -> None:
        self._device, self._port, self._base, self._endpoint = device, port, stream, endpoint
        self._queue: BulkQueue | None = None
        self._layout: Layout | None = None
        self._format: ImageFormat | None = None
        self._slots: dict[int, _Slot] = {}
        """Known slots, lent or not: what is lent again needs no new transfers."""
        self._lent: dict[int, None] = {}
        self._waiting: deque[int] = deque()
        """Lent and not queued: the stream is off, or the kernel has no memory for more."""
        self._refused: set[int] = set()
        """The kernel had no memory for them: they end as cancelled, and say nothing of what flies."""
        self._full = False
        """The kernel's memory is used up: nothing more is queued until a frame's transfers that flew have ended."""
        self._stuck: set[int] = set()
        """Their transfers did not end in time: the kernel may still write there, so they are never used again."""
        self.halt_first = True
        """Stall the endpoint before it is cleared: some cameras keep half a frame otherwise, some host controllers
        cannot."""
        self.short_of_memory = False
        self.counts: Counter[str] = Counter()

    # -- set-up ------------------------------------------------------------

    def found_on(self) -> bool:
        """Whether the camera streams already, which another program left so; it is switched off. Its registers cannot
        be set else."""
        if not self._port.read_u32(self._base + registers.SI_CONTROL) & registers.STREAM_ON:
            return False
        self.counts["dirty"] += 1
        self._port.write_u32(self._base + registers.SI_CONTROL, 0)
        return True

    def set_up(self, image: ImageFormat, most_transfer_bytes: int) -> Layout:
        """Agree with the camera on the transfers of a frame; the stream must be off."""
        needs = registers.read_needs(self._port, self._base)
        packet = max(self._endpoint.max_packet_bytes, 1)
        layout = plan(needs, image.image_bytes, min(most_transfer_bytes, MOST_TRANSFER_BYTES), packet)
        values = (
            (registers.SI_MOST_LEADER, layout.leader_bytes), (registers.SI_MOST_TRAILER, layout.trailer_bytes),
            (registers.SI_TRANSFER, layout.transfer_bytes), (registers.SI_COUNT, layout.transfers),
            (registers.SI_FINAL_1, layout.final_1_bytes), (registers.SI_FINAL_2, layout.final_2_bytes),
        )  # fmt: skip
        for offset, value in values:
            self._port.write_u32(self._base + offset, value)
        self._layout, self._format = layout, image
        self.clear()
        self._queue = self._queue or BulkQueue(self._device, self._endpoint.address)
        self._slots = {number: self._placed(self._slots[number].image, layout) for number in self._usable()}
        for number, slot in self._slots.items():
            self._prepare(number, slot)
        return layout

    def clear(self) -> None:
        """Drop what the camera has ready on the stream's endpoint, and begin it anew."""
        if self.halt_first:
            try:
                self._device.set_halt(self._endpoint.address)
            except UsbError as error:
                if error.reason is UsbReason.UNPLUGGED:
                    raise
                self.halt_first = False
        self._device.clear_halt(self._endpoint.address)

    def switch_on(self) -> None:
        """Queue what is lent, then let the camera send."""
        self._fill()
        if self._lent and not (self._queue and self._queue.flying):
            raise UsbError(UsbReason.NO_MEMORY, f"{self._device.found.name}: not one frame can be queued")
        self._port.write_u32(self._base + registers.SI_CONTROL, registers.STREAM_ON)

    def switch_off(self, timeout_s: float = 2.0) -> None:
        """Let the camera send no more, and take every transfer back; slots stay lent."""
        try:
            self._port.write_u32(self._base + registers.SI_CONTROL, 0)
        finally:
            self._take_back(timeout_s)

    def _take_back(self, timeout_s: float) -> None:
        if self._queue is not None:
            self._stuck |= self._queue.cancel(timeout_s)
        self._refused, self._full = set(), False
        self._waiting = deque(self._usable())

    def close(self) -> None:
        """Take every transfer back and end the queue, before the device is closed; slots stay lent. Never raises."""
        if self._queue is not None:
            self._stuck |= self._queue.stop()
            self._queue = None
        self._waiting = deque(self._usable())

    def adopt(self, other: Stream) -> None:
        """Take over the slots lent to the stream of the same camera as it was before a reset."""
        self._stuck = set(other._stuck)
        for number in other._lent:
            if number not in self._stuck:
                self.lend(number, other._slots[number].image)
        self.counts.update(other.counts)
        self.halt_first = other.halt_first

    # -- slots ------------------------------------------------------------

    def lend(self, number: int, slot: np.ndarray) -> None:
        """A slot to fill; under a number whose transfers did not end, it is left alone."""
        if number in self._stuck:
            return
        known = self._slots.get(number)
        if known is None or known.image.ctypes.data != slot.ctypes.data or known.image.size != slot.size:
            self._slots[number] = place = self._placed(slot, self._layout)
            if self._queue is not None and self._layout is not None:
                self._prepare(number, place)
        self._lent[number] = None
        self._waiting.append(number)

    def reclaim(self) -> list[int]:
        """Numbers lent, but for those whose memory the kernel keeps; nothing is lent after."""
        numbers = self._usable()
        self._lent, self._waiting = {}, deque()
        return numbers

    def _usable(self) -> list[int]:
        """Numbers lent whose memory is not the kernel's for good."""
        return [number for number in self._lent if number not in self._stuck]

    @staticmethod
    def _placed(image: np.ndarray, layout: Layout | None) -> _Slot:
        none = np.empty(0, np.uint8)
        if layout is None:
            return _Slot(image, none, none, none)
        leader, trailer = np.zeros(layout.leader_bytes, np.uint8), np.zeros(layout.trailer_bytes, np.uint8)
        return _Slot(image, leader, np.zeros(sum(layout.payload) - layout.body_bytes, np.uint8), trailer)

    def _prepare(self, number: int, slot: _Slot) -> None:
        assert self._layout is not None and self._queue is not None
        memory, at, body = [slot.leader], 0, self._layout.body_bytes
        for size in self._layout.payload:
            memory.append(slot.image[at : at + size] if at < body else slot.tail[at - body : at - body + size])
            at += size
        self._queue.prepare(number, [*memory, slot.trailer])

    def _fill(self) -> None:
        """Queue what waits, as far as the kernel's memory goes."""
        while self._waiting and self._queue is not None and not self._full:
            number = self._waiting.popleft()
            try:
                self._queue.submit(number)
            except UsbError as error:
                self._refused.add(number)  # it comes back cancelled
                if error.reason is not UsbReason.NO_MEMORY or not self._queue.flying - self._refused - self._stuck:
                    raise
                self.short_of_memory = self._full = True

    # -- frames ------------------------------------------------------------

    def take(self, timeout_s: float) -> Frame | None:
        """The next whole frame; None when none came in `timeout_s`. Raises `OutOfStep` too."""
        assert self._queue is not None
        deadline_s = time.monotonic() + timeout_s
        self._fill()
        while (done := self._queue.take(deadline_s - time.monotonic())) is not None:
            frame = self._ended(done)
            if frame is not None:
                return frame
            self._fill()
            if time.monotonic() >= deadline_s:
                break
        return None

    def _ended(self, done: Done) -> Frame | None:
        """The frame, which is lent no more, or None; the slot of any other waits again."""
        if done.number in self._stuck:
            return None
        if done.number in self._refused:
            self._refused.remove(done.number)
        else:
            self._full = False
        frame = self._judged(done)
        if frame is None:
            self._waiting.append(done.number)
            return None
        del self._lent[done.number]
        self.counts["frame"] += 1
        return frame

    def _judged(self, done: Done) -> Frame | None:
        """The frame, or None when it is dropped. Its slot waits again before an error is raised."""
        slot = self._slots[done.number]
        if done.statuses[0] == done.failed == CANCELLED:
            return None  # not the camera's doing: it was queued in part
        try:
            return self._frame(done, slot)
        except UsbError:
            self._waiting.appendleft(done.number)
            raise

    def _frame(self, done: Done, slot: _Slot) -> Frame | None:
        if done.failed:
            assert self._queue is not None
            raise self._queue.error(done.failed, "a transfer of a frame failed")
        leader, trailer = self._heads(done, slot)
        wanted, payload = self._format, sum(done.lengths[1:-1])
        assert wanted is not None and self._layout is not None
        _, _, _, block_id, _, kind, timestamp_ns, code, width, height, *_ = leader
        status, valid_bytes, lines = trailer[4], trailer[6], trailer[7]
        formats = [(one, wanted.code, wanted.width_px, wanted.height_px) for one in (IMAGE, IMAGE_AND_CHUNKS)]
        fault = ""
        if status:
            fault = STATUS.get(status, "status")
        elif (kind, code, width, height) not in formats:
            fault = "other format"
        elif payload != valid_bytes or payload < wanted.image_bytes or lines != wanted.height_px:
            fault = "short"
        if fault:
            self.counts[fault] += 1
            return None
        body, image_bytes = self._layout.body_bytes, wanted.image_bytes
        slot.image[body:image_bytes] = slot.tail[: image_bytes - body]
        chunks = slot.tail[image_bytes - body : payload - body].tobytes() if payload > image_bytes else b""
        return Frame(done.number, block_id, timestamp_ns, done.host_t_s, chunks)

    def _heads(self, done: Done, slot: _Slot) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Leader and trailer as they must be, or `OutOfStep`."""
        leader, trailer = _padded(slot.leader, LEADER.size), _padded(slot.trailer, TRAILER.size)
        for head, magic, least, length in (
            (leader, LEADER_MAGIC, LEADER_BYTES, done.lengths[0]),
            (trailer, TRAILER_MAGIC, TRAILER_BYTES, done.lengths[-1]),
        ):
            if length < least or int.from_bytes(head[:4], "little") != magic:
                raise OutOfStep(f"{self._device.found.name}: a transfer does not hold the leader or trailer it should")
        read, end = LEADER.unpack(leader), TRAILER.unpack(trailer)
        if read[3] != end[3]:
            raise OutOfStep(f"{self._device.found.name}: leader of frame {read[3]} with the trailer of {end[3]}")
        return read, end


def _padded(memory: np.ndarray, size: int) -> bytes:
    return memory[:size].tobytes().ljust(size, b"\0")
