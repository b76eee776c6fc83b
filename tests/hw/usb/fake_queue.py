"""libusb's asynchronous part without a bus."""

from __future__ import annotations

import ctypes
import threading

from hw.usb import queue as module
from hw.usb.queue import CANCELLED


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
