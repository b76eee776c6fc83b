import itertools
import struct
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw.camera.u3v.registers import StreamNeeds
from hw.camera.u3v.stream import IMAGE, LEADER, LEADER_MAGIC, TRAILER, TRAILER_MAGIC, ImageFormat, Stream, plan
from hw.errors import UsbError, UsbReason
from hw.usb.queue import CANCELLED, Done
from tests.hw.usb.fake_queue import FakeLibUsb

FULL = 1920 * 1200


def test_a_whole_number_of_units_is_one_transfer():
    layout = plan(StreamNeeds(1024, FULL, 52, 32), FULL, 8 << 20, 1024)
    assert (layout.transfer_bytes, layout.transfers, layout.final_1_bytes, layout.final_2_bytes) == (FULL, 1, 0, 0)
    assert layout.leader_bytes == layout.trailer_bytes == 1024 and layout.body_bytes == FULL


def test_what_is_behind_whole_units_is_a_transfer_of_its_own():
    layout = plan(StreamNeeds(1024, FULL + 100, 52, 36), FULL, 1 << 20, 1024)
    assert list(layout.payload) == [1 << 20, 1 << 20, FULL - (2 << 20), 1024]


@given(
    alignment=st.sampled_from([1, 4, 16, 512, 1024, 4096, 65536]),
    image=st.integers(1, 5_000_000),
    chunks=st.integers(0, 3000),
    most=st.integers(1, 8 << 20),
    leader=st.integers(0, 5000),
)
def test_every_plan_is_one_a_camera_accepts_and_the_slot_holds(alignment, image, chunks, most, leader):
    needs = StreamNeeds(alignment, image + chunks, leader, leader)
    layout = plan(needs, image, max(most, image // 50), 1024)
    sizes = [*layout.payload, layout.leader_bytes, layout.trailer_bytes]
    assert all(size > 0 and size % alignment == 0 for size in sizes)
    assert sum(layout.payload) >= image + chunks and layout.leader_bytes >= max(leader, 1024)
    assert layout.body_bytes <= image and image - layout.body_bytes < alignment
    ends = [sum(list(layout.payload)[: k + 1]) for k in range(len(list(layout.payload)))]
    assert layout.body_bytes in [0, *ends]  # no transfer is in the slot in part
    assert layout.frame_bytes == sum(sizes)


def test_a_payload_smaller_than_its_image_is_refused():
    with pytest.raises(UsbError, match="needs 101"):
        plan(StreamNeeds(1, 100, 52, 32), 101, 1 << 20, 1024)


class Silent(FakeLibUsb):
    """Counts what is submitted, and ends a driver that never stops."""

    submits = 0

    def submit(self, transfer):
        self.submits += 1
        assert self.submits < 100, "the same refused transfer is queued again and again"
        return super().submit(transfer)


FOUND = SimpleNamespace(name="camera", bus=9, address=99)
FORMAT = ImageFormat(0x01080001, 64, 64, 4096)


class Registers:
    """A camera whose frames are a leader, one transfer and a trailer."""

    def read(self, address, count):
        return struct.pack("<QII", 4096, 1024, 1024)[:count]

    def read_u32(self, address):
        return 0

    def write_u32(self, address, value):
        """Whatever is written is right."""


@pytest.fixture
def library():
    return Silent()


@pytest.fixture
def stream(library, monkeypatch):
    monkeypatch.setattr("hw.usb.queue.libusb_of", lambda device: (library, 1))
    device = SimpleNamespace(found=FOUND, set_halt=lambda endpoint: None, clear_halt=lambda endpoint: None)
    one = Stream(device, Registers(), 0, SimpleNamespace(address=0x82, max_packet_bytes=1024))
    one.set_up(FORMAT, 8 << 20)
    yield one
    library.stuck = False
    one.close()


def lend(stream, count):
    for number in range(count):
        stream.lend(number, np.zeros(4096, np.uint8))


def send_frame(library, block_id):
    library.send(LEADER.pack(LEADER_MAGIC, 0, 52, block_id, 0, IMAGE, 5, FORMAT.code, 64, 64, 0, 0, 0, 0))
    library.send(bytes([block_id]) * 4096)
    library.send(TRAILER.pack(TRAILER_MAGIC, 0, 32, block_id, 0, 0, 4096, 64))


def test_a_silent_camera_is_told_although_the_kernel_is_short_of_memory(stream, library):
    library.refuse_after = 6  # two frames of three transfers
    lend(stream, 4)
    assert stream.take(0.05) is None and stream.take(0.0) is None
    assert stream.short_of_memory and library.submits == 7
    send_frame(library, 1)  # now there is room, for one
    assert stream.take(1.0).block_id == 1
    assert stream.take(0.0) is None and len(library.flying) == 6 and library.submits == 11
    send_frame(library, 2)
    assert stream.take(1.0).block_id == 2


def test_a_frame_refused_in_part_is_queued_again_when_another_has_ended(stream, library):
    library.refuse_after = 5
    lend(stream, 2)
    assert stream.take(0.05) is None and len(library.flying) == 3
    send_frame(library, 1)
    library.refuse_after = None
    assert stream.take(1.0).number == 0
    assert stream.take(0.0) is None and len(library.flying) == 3
    send_frame(library, 2)
    assert stream.take(1.0).number == 1


def test_when_nothing_flies_any_more_missing_memory_is_an_error(stream, library):
    library.refuse_after = 3
    lend(stream, 3)
    assert stream.take(0.05) is None
    send_frame(library, 1)
    library.refuse_after = 0
    assert stream.take(1.0).number == 0
    with pytest.raises(UsbError) as caught:
        stream.take(0.05)
    assert caught.value.reason is UsbReason.NO_MEMORY


def test_frames_that_are_dropped_do_not_put_off_the_deadline(stream, library, monkeypatch):
    lend(stream, 1)
    now_s = itertools.count(0.0, 1.0)
    monkeypatch.setattr("hw.camera.u3v.stream.time", SimpleNamespace(monotonic=lambda: next(now_s)))
    taken = iter([Done(0, 0.0, (CANCELLED,) * 3, (0, 0, 0))] * 20)
    monkeypatch.setattr(stream._queue, "take", lambda timeout_s: next(taken))
    monkeypatch.setattr(stream._queue, "submit", lambda number: None)
    assert stream.take(5.0) is None


def test_transfers_that_do_not_end_are_never_freed_nor_used_again(stream, library):
    lend(stream, 2)
    stream.switch_on()
    library.stuck = True
    stream.switch_off(0.05)
    stream.set_up(FORMAT, 8 << 20)  # the fake's `free` refuses what flies
    stream.lend(0, np.zeros(4096, np.uint8))
    assert stream.reclaim() == [] and len(library.flying) == 6
    send_frame(library, 1)  # it comes after all
    lend(stream, 3)
    assert stream.take(0.05) is None
    assert stream.reclaim() == [2]
