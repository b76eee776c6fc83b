import asyncio
import threading

import pytest

from daemon.events import Event, EventFeed, EventKind

QUICK_S = 0.05


def event(seq):
    return Event(EventKind.STEP, seq / 10, seq / 10, seq=seq, run_id="r")


class Store:
    """Everything ever published, as the catalogue gives it; `asked` are the calls and their threads."""

    def __init__(self, last):
        self.events, self.asked = [event(n) for n in range(1, last + 1)], []

    def load(self, after, limit):
        self.asked.append((after, limit, threading.current_thread()))
        return [one for one in self.events if one.seq > after][:limit]


def seqs(events):
    return [one.seq for one in events]


async def collect(feed, seq, count, idle_s=5.0):
    """Sequence numbers of the next `count` events that a follower sees."""
    found = []
    async with asyncio.timeout(5):
        async for batch in feed.follow(seq, idle_s):
            found += seqs(batch)
            if len(found) >= count:
                return found
    raise AssertionError


async def test_what_is_recent_comes_from_memory():
    store = Store(0)
    feed = EventFeed(store.load)
    assert feed.last_seq == 0
    feed.preload([event(1), event(2)])
    feed.publish([event(3), event(4)])
    assert feed.last_seq == 4
    assert seqs(await feed.after(0)) == [1, 2, 3, 4]
    assert seqs(await feed.after(2)) == [3, 4]
    assert seqs(await feed.after(1, limit=2)) == [2, 3]
    assert await feed.after(4) == [] and await feed.after(99) == []
    assert store.asked == []


async def test_what_is_older_comes_from_the_store_in_a_thread_of_its_own():
    store = Store(50)
    feed = EventFeed(store.load, keep=10)
    for one in store.events:
        feed.publish([one])
    assert seqs(await feed.after(5, limit=3)) == [6, 7, 8]
    ((after, limit, thread),) = store.asked
    assert (after, limit) == (5, 3) and thread is not threading.main_thread()
    assert seqs(await feed.after(40)) == list(range(41, 51))  # just within memory
    assert len(store.asked) == 1


async def test_a_follower_resumes_anywhere_and_misses_nothing():
    store = Store(3000)
    feed = EventFeed(store.load, keep=100)
    feed.preload(store.events[-100:])
    for seq in (0, 1, 999, 2899, 2900, 2950):
        assert await collect(feed, seq, 3000 - seq) == list(range(seq + 1, 3001))


async def test_followers_are_woken_and_none_holds_up_another():
    feed = EventFeed(Store(0).load)
    slow = feed.follow(0, 5.0)
    followers = [asyncio.create_task(collect(feed, 0, 20)) for _ in range(3)]
    await asyncio.sleep(0)
    for seq in range(1, 21):
        feed.publish([event(seq)])
        if seq % 5 == 0:
            await asyncio.sleep(0)
    for follower in followers:
        assert await follower == list(range(1, 21))
    assert seqs(await anext(slow)) == list(range(1, 21))  # it asked only now
    await slow.aclose()


async def test_silence_is_an_empty_batch_for_keep_alives():
    feed = EventFeed(Store(0).load)
    follower = feed.follow(0, QUICK_S)
    assert await anext(follower) == [] and await anext(follower) == []
    feed.publish([event(1)])
    assert seqs(await anext(follower)) == [1]
    await follower.aclose()


async def test_an_event_published_while_the_store_is_read_is_not_missed():
    loop = asyncio.get_running_loop()

    def read(after, limit):
        if after < 5:
            loop.call_soon_threadsafe(feed.publish, [event(6)])
            return [event(n) for n in range(after + 1, 6)]
        return []

    feed = EventFeed(read, keep=100)

    assert await collect(feed, 0, 6) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("kind", list(EventKind))
def test_an_event_is_plain_fields(kind):
    fields = Event(kind, 1.0, 2.0, 7, detected_host_t_s=5.0).as_dict()
    assert fields["kind"] == kind.value and type(fields["kind"]) is str
    assert "detected_host_t_s" not in fields and fields["particle_id"] == 7
