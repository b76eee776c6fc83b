"""How often who may ask: buckets that fill with time, a bounded number of them, on the monotonic clock."""

from __future__ import annotations

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache

from daemon.errors import ApiError, ApiReason

MAX_WAIT_S = 86_400.0
MAX_KEYS = 4096  # clients remembered; who comes back after so many others begins with a full bucket


class TooManyRequestsError(ApiError):
    """Refused for now; answered with Retry-After."""

    def __init__(self, detail: str, wait_s: float) -> None:
        super().__init__(ApiReason.TOO_MANY_REQUESTS, detail)
        self.retry_after_s = max(1, math.ceil(min(wait_s, MAX_WAIT_S)))


class Buckets:
    """One bucket a key: `burst` at once, `rate_hz` in the long run."""

    def __init__(self, rate_hz: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate_hz, self._burst, self._clock = rate_hz, burst, clock
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._levels)

    def take(self, key: str) -> float:
        """0 when there is one to take, else how long it will be until there is."""
        now_s = self._clock()
        level, at_s = self._levels.pop(key, (self._burst, now_s))
        level = min(self._burst, level + self._rate_hz * (now_s - at_s))
        taken = level >= 1.0
        self._levels[key] = (level - 1.0 if taken else level, now_s)
        if len(self._levels) > MAX_KEYS:
            self._levels.popitem(last=False)
        return 0.0 if taken else (1.0 - level) / self._rate_hz


@lru_cache(maxsize=1024)
def peer_key(remote: str | None) -> str:
    """One client by its address; a network of 2**64 addresses, which is what one host gets of IPv6, counts as one."""
    try:
        address = ipaddress.ip_address((remote or "").partition("%")[0])
    except ValueError:
        return remote or "unix"
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)
