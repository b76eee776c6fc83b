import threading

import psutil

from daemon.engine.ring import SCRATCH, FrameRing
from hw.camera.contract import FrameStamp


def _stamp(n):
    return FrameStamp(n, float(n), float(n))


def test_frames_come_out_in_order_and_slots_are_reused():
    ring = FrameRing(2, 4)
    for n in range(10):
        number = ring.lease()
        ring.slot(number)[:] = n
        ring.commit(number, _stamp(n))
        taken, stamp, _ = ring.take(0.1)
        assert stamp.block_id == n
        assert ring.slot(taken).tolist() == [n] * 4
        ring.release(taken)


def test_a_full_ring_leases_nothing_and_overwrites_nothing():
    ring = FrameRing(2, 1)
    for n in range(2):
        number = ring.lease()
        ring.slot(number)[0] = n
        ring.commit(number, _stamp(n))
    assert ring.lease() is None
    assert ring.depth == ring.slots == 2
    taken, _, _ = ring.take(0.1)
    assert ring.slot(taken)[0] == 0
    assert ring.lease() is None  # taken is not yet released
    ring.release(taken)
    assert ring.lease() == taken


def test_an_unfilled_lease_goes_back():
    ring = FrameRing(1, 1)
    number = ring.lease()
    assert ring.lease() is None
    ring.release(number)
    assert ring.lease() == number


def test_frames_of_an_abandoned_ring_are_counted_and_not_taken():
    ring = FrameRing(3, 1)
    for n in range(2):
        ring.commit(ring.lease(), _stamp(n))
    assert ring.abandon() == 2 and ring.depth == 0
    assert ring.take(0.01) is None and ring.abandon() == 0


def test_take_times_out_on_an_empty_ring():
    assert FrameRing(1, 1).take(0.01) is None


def test_two_threads_pass_every_frame():
    ring = FrameRing(4, 8)
    seen = []

    def consume():
        while len(seen) < 500:
            item = ring.take(1.0)
            seen.append(item[1].block_id)
            ring.release(item[0])

    thread = threading.Thread(target=consume)
    thread.start()
    n = 0
    while n < 500:
        number = ring.lease()
        if number is not None:
            ring.commit(number, _stamp(n))
            n += 1
    thread.join()
    assert seen == list(range(500))


def backlog(ring, depth):
    """Fill `depth` slots, then work them off."""
    for n in range(depth):
        number = ring.lease()
        ring.slot(number)[:] = 1
        ring.commit(number, _stamp(n))
    for _ in range(depth):
        ring.release(ring.take(0.1)[0])


def test_a_backlogs_memory_goes_back_and_every_slot_is_there_after():
    ring, process = FrameRing(32, 1_000_001), psutil.Process()
    before = process.memory_info().rss
    backlog(ring, 32)
    assert process.memory_info().rss > before + 30_000_000
    ring.settle()
    assert process.memory_info().rss < before + 8_000_000
    assert sorted(ring.lease() for _ in range(32)) == list(range(32))


def test_settling_leaves_frames_in_hand_alone():
    ring = FrameRing(16, 5000)
    backlog(ring, 16)
    held = [ring.lease() for _ in range(3)]
    for number in held:
        ring.slot(number)[:] = 7
    ring.settle()
    for number in held:
        assert (ring.slot(number) == 7).all()
        ring.release(number)
    assert sorted(ring.lease() for _ in range(16)) == list(range(16))


def test_slots_lent_to_a_cameras_queue_are_no_backlog():
    ring, process = FrameRing(32, 1_000_001), psutil.Process()
    lent = [ring.lease() for _ in range(8)]
    for number in lent:
        ring.slot(number)[:] = 7
    before = process.memory_info().rss
    backlog(ring, 24)
    ring.settle(lent=8)
    assert process.memory_info().rss < before + 8_000_000
    assert all((ring.slot(number) == 7).all() for number in lent)
    assert sorted([*lent, *(ring.lease() for _ in range(24))]) == list(range(32))


def test_slots_begin_pages_and_scratch_is_none_of_them():
    ring = FrameRing(3, 5000)
    starts = [ring.slot(number).ctypes.data for number in (0, 1, 2, SCRATCH)]
    assert all(start % 4096 == 0 for start in starts) and len(set(starts)) == 4
    ring.slot(SCRATCH)[:] = 1
    assert not any(ring.slot(number).any() for number in range(3))
    assert sorted(ring.lease() for _ in range(3)) == [0, 1, 2]
