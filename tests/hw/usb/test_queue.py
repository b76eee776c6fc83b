import gc
import weakref
from types import SimpleNamespace

import numpy as np
import pytest

from hw.errors import UsbError, UsbReason
from hw.usb.queue import CANCELLED, BulkQueue, libusb_of
from tests.hw.usb.fake_queue import FakeLibUsb

FOUND = SimpleNamespace(name="camera", bus=9, address=99)


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
