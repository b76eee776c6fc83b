"""Columns of chunks that were read lately, decompressed: who watches a few particles of a run asks for the same chunks
again and again, and reading and decompressing them is nine tenths of the work.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable

from daemon.store.codec import Unpacked

RECENT_BYTES = 32 << 20  # a minute of the contrast of 1000 particles at 100 frames/s


class Recent:
    """As many as fit, those asked for lately. Any thread."""

    def __init__(self, max_bytes: int = RECENT_BYTES) -> None:
        self._max_bytes, self._bytes = max_bytes, 0
        self._held: OrderedDict[Hashable, Unpacked] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Unpacked | None:
        """None when it is not held (any more)."""
        with self._lock:
            found = self._held.get(key)
            if found is not None:
                self._held.move_to_end(key)
            return found

    def put(self, key: Hashable, column: Unpacked) -> None:
        """Keep it, and let go of what was asked for least recently."""
        with self._lock:
            if key in self._held:
                return
            self._held[key] = column
            self._bytes += column.nbytes
            while self._bytes > self._max_bytes:
                self._bytes -= self._held.popitem(last=False)[1].nbytes

    def forget(self) -> None:
        """Let go of everything."""
        with self._lock:
            self._held.clear()
            self._bytes = 0
