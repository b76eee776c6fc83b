from __future__ import annotations

import threading
import time

import pytest

from daemon.errors import StoreError, StoreReason
from daemon.store.assemble import checked_batch
from daemon.store.queue import DENSE_SHARE, Op, OpQueue
from tests.daemon.store.helpers import frames


def dense():
    return Op("frames", batch=checked_batch(*frames(0, 1)), nbytes=1)


def refused(queue, op, wait_s=0.0):
    with pytest.raises(StoreError) as caught:
        queue.put(op, wait_s)
    return caught.value.reason


def test_order_and_room():
    queue = OpQueue(3, 1000)
    ops = [Op(str(i), nbytes=10) for i in range(3)]
    for op in ops:
        queue.put(op, 0.0)
    assert refused(queue, Op("one more")) is StoreReason.OVERLOADED
    assert [queue.take(0.0) for _ in range(4)] == [*ops, None]
    assert refused(queue, Op("taken is not done")) is StoreReason.OVERLOADED
    queue.done(ops[:1])
    assert queue.depth == (2, 20)
    queue.put(Op("now"), 0.0)


def test_bytes_are_bounded_but_one_large_operation_always_fits():
    queue = OpQueue(100, 1000)
    large = Op("large", nbytes=5000)
    queue.put(large, 0.0)
    assert refused(queue, Op("small", nbytes=1)) is StoreReason.OVERLOADED
    queue.done([large])
    assert queue.depth == (0, 0)


def test_dense_frames_leave_room_for_rows():
    queue = OpQueue(100, 10**6)
    for _ in range(int(DENSE_SHARE * 100)):
        queue.put(dense(), 0.0)
    assert refused(queue, dense()) is StoreReason.OVERLOADED
    for _ in range(100 - int(DENSE_SHARE * 100)):
        queue.put(Op("row"), 0.0)
    assert refused(queue, Op("row")) is StoreReason.OVERLOADED


def test_a_waiting_caller_gets_room_as_soon_as_there_is_some():
    queue = OpQueue(1, 1000)
    first = Op("first")
    queue.put(first, 0.0)
    threading.Timer(0.05, queue.done, [[first]]).start()
    began_s = time.monotonic()
    queue.put(Op("second"), 5.0)
    assert time.monotonic() - began_s < 2.0


def test_waiting_ends_at_the_deadline():
    queue = OpQueue(1, 1000)
    queue.put(Op("first"), 0.0)
    began_s = time.monotonic()
    assert refused(queue, Op("second"), 0.05) is StoreReason.OVERLOADED
    assert 0.04 < time.monotonic() - began_s < 2.0


def test_closing_refuses_wakes_and_drains():
    queue = OpQueue(1, 1000)
    queue.put(Op("first"), 0.0)
    threading.Timer(0.05, queue.close).start()
    assert refused(queue, Op("second"), 5.0) is StoreReason.STOPPED
    assert not queue.drained
    assert queue.take(0.0).what == "first"
    assert queue.drained
    assert queue.take(5.0) is None


def test_abandoning_gives_up_what_is_not_done():
    queue = OpQueue(5, 1000)
    ops = [Op("taken"), Op("waiting")]
    for op in ops:
        queue.put(op, 0.0)
    queue.take(0.0)
    assert queue.abandon() == ops
    assert queue.depth == (0, 0)


def test_merged_operations_give_back_their_room_and_share_the_outcome():
    queue = OpQueue(5, 1000)
    members = [Op("a", nbytes=100), Op("b", nbytes=200)]
    for op in members:
        queue.put(op, 0.0)
    merged = Op("chunk", nbytes=0, members=members)
    merged.result = 42
    queue.done([merged])
    merged.resolve()
    assert queue.depth == (0, 0)
    assert [op.future.result(0) for op in members] == [42, 42]


def test_accepted_work_cannot_be_cancelled():
    queue = OpQueue(5, 1000)
    op = Op("event")
    queue.put(op, 0.0)
    assert not op.future.cancel()
    op.resolve()
    assert op.future.result(0) is None
