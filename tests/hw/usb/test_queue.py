import ctypes
import gc
import threading
import weakref
from types import SimpleNamespace

import numpy as np
import pytest

from hw.errors import UsbError, UsbReason
from hw.usb import queue as module
from hw.usb.queue import CANCELLED, BulkQueue, libusb_of

FOUND = SimpleNamespace(name="camera", bus=9, address=99)


class FakeLibUsb:
    """libusb whose transfers end when a test says so; callbacks run in the queue's event thread, as they do."""

    def __init__(self):
        self.flying, self.ends, self.refuse_after = [], [], None
        self.room, self.allocated, self.stuck = threading.Condition(), {}, False

    def allocate(self):
        one = module._Transfer()
        self.allocated[ctypes.addressof(one)] = one
        return ctypes.pointer(one)

    def free(self, transfer):
        assert not any(self.same(one, transfer) for one in self.flying)
        del self.allocated[ctypes.addressof(transfer.contents)]

    @staticmethod
    def same(one, other):
        return ctypes.addressof(one.contents) == ctypes.addressof(other.contents)

    def submit(self, transfer):
        with self.room:
            if self.refuse_after is not None and len(self.flying) >= self.refuse_after:
                return -11
            self.flying.append(transfer)
            return 0

    def cancel(self, transfer):
        if self.stuck:
            return 0
        with self.room:
            found = [one for one in self.flying if self.same(one, transfer)]
            return self._end(found[0], CANCELLED, b"") if found else -5

    def send(self, data, status=0):
        """The device ends the oldest transfer with `data`."""
        with self.room:
            self._end(self.flying[0], status, data)

    def _end(self, transfer, status, data):
        ctypes.memmove(transfer.contents.buffer, data, len(data))
        transfer.contents.status, transfer.contents.actual_length = status, len(data)
        self.flying.remove(transfer)
        self.ends.append(transfer)
        self.room.notify_all()
        return 0

    def handle_events(self, timeout_s):
        with self.room:
            self.room.wait_for(lambda: self.ends, min(timeout_s, 0.02))
            ends, self.ends = self.ends, []
        for transfer in ends:
            transfer.contents.callback(transfer)


@pytest.fixture
def library():
    return FakeLibUsb()


@pytest.fixture
def queue(library):
    one = BulkQueue(SimpleNamespace(found=FOUND), 0x82, (library, 1))
    yield one
    library.stuck = False
    one.stop(0.2)


def batch(queue, number, sizes=(4, 8, 4)):
    memory = [np.zeros(size, np.uint8) for size in sizes]
    queue.prepare(number, memory)
    return memory


def test_batches_end_in_order_in_the_callers_memory(queue, library):
    memory = {number: batch(queue, number) for number in (7, 3)}
    for number in memory:
        queue.submit(number)
    assert queue.flying == {7, 3}
    for data in (b"lead", b"payload1", b"t1", b"LEAD", b"PAY", b"T2"):
        library.send(data)
    first, second = queue.take(1.0), queue.take(1.0)
    assert (first.number, first.lengths, first.failed) == (7, (4, 8, 2), 0)
    assert (second.number, second.lengths) == (3, (4, 3, 2))
    assert memory[7][1].tobytes() == b"payload1" and memory[3][1].tobytes()[:3] == b"PAY"
    assert first.host_t_s <= second.host_t_s and queue.flying == set()
    assert queue.take(0.0) is None


def test_a_batch_may_be_submitted_again_and_prepared_anew(queue, library):
    batch(queue, 1, (4,))
    for data in (b"aa", b"bbb"):
        queue.submit(1)
        library.send(data)
        assert queue.take(1.0).lengths == (len(data),)
    other = batch(queue, 1, (2, 2))
    assert len(library.allocated) == 2
    queue.submit(1)
    library.send(b"x")
    library.send(b"y")
    assert queue.take(1.0).lengths == (1, 1) and other[1][0] == ord("y")


def test_a_failed_transfer_is_told_with_its_reason(queue, library):
    batch(queue, 1)
    queue.submit(1)
    library.send(b"lead")
    library.send(b"", status=5)
    library.send(b"", status=5)
    done = queue.take(1.0)
    assert done.failed == 5 and queue.error(done.failed, "a frame").reason is UsbReason.UNPLUGGED


@pytest.mark.parametrize("accepted", [0, 1, 2])
def test_what_cannot_be_queued_whole_ends_cancelled(queue, library, accepted):
    batch(queue, 1)
    library.refuse_after = accepted
    with pytest.raises(UsbError) as caught:
        queue.submit(1)
    assert caught.value.reason is UsbReason.NO_MEMORY and "queueing" in caught.value.detail
    done = queue.take(1.0)
    assert done.failed == CANCELLED and library.flying == [] and queue.flying == set()
    library.refuse_after = None
    queue.submit(1)
    assert queue.flying == {1}


def test_cancelling_brings_everything_back(queue, library):
    for number in range(3):
        batch(queue, number)
        queue.submit(number)
    library.send(b"lead")
    assert queue.cancel(1.0) == set()
    assert library.flying == [] and queue.take(0.0) is None
    queue.submit(1)  # it goes on
    assert queue.flying == {1}


def test_stop_frees_all_and_may_be_repeated(queue, library):
    for number in range(3):
        batch(queue, number)
        queue.submit(number)
    assert queue.stop(1.0) == set() == queue.stop(1.0)
    assert library.allocated == {} and not queue._events.is_alive()


def test_memory_in_flight_outlives_the_queue(library):
    queue = BulkQueue(SimpleNamespace(found=FOUND), 0x82, (library, 1))
    memory = batch(queue, 1, (16,))
    alive = weakref.ref(memory[0])
    queue.submit(1)
    library.stuck = True
    assert queue.stop(0.05) == {1}
    assert len(library.allocated) == 1
    del memory, queue
    gc.collect()
    library.send(b"late")  # the kernel ends it after all
    assert alive() is not None
    library.handle_events(0.1)
    gc.collect()
    assert alive() is None


def test_a_pyusb_that_hides_its_handle_is_a_sentence():
    with pytest.raises(UsbError, match="this version of pyusb"):
        libusb_of(SimpleNamespace(pyusb=SimpleNamespace()))
