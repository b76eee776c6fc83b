"""What every emulated USB device is: descriptors, control requests and bulk endpoints, as the host meets them.

A link (umockdev, usbredir) owns the wire and calls a model from one thread, so models need no locks. Standard requests
(descriptors, configuration, features) are the link's own; a model answers class and vendor requests.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass
from typing import Any


class Stall(Exception):
    """The endpoint answers with STALL."""


class Gone(Exception):
    """The device unplugs itself: a fault on order."""


@dataclass(frozen=True)
class Setup:
    """The eight bytes that begin a control transfer (USB 2.0, table 9-2)."""

    request_type: int
    request: int
    value: int
    index: int
    length: int

    @classmethod
    def unpack(cls, data: bytes) -> Setup:
        """From the wire."""
        return cls(*struct.unpack_from("<BBHHH", data))

    @property
    def inward(self) -> bool:
        """Whether data goes to the host."""
        return bool(self.request_type & 0x80)


class UsbModel(ABC):
    """One emulated device, constructed unplugged."""

    speed_mbps = 480

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        """What happened, by name, for tests to look at."""

    @abstractmethod
    def device_descriptor(self) -> bytes:
        """18 bytes."""

    @abstractmethod
    def configuration(self) -> bytes:
        """The configuration descriptor with all that follows it."""

    @abstractmethod
    def strings(self) -> dict[int, str]:
        """String descriptors by index, from 1."""

    def control(self, setup: Setup, data: bytes) -> bytes:
        """Answer a class or vendor request; `data` came with it where it goes outward. Raises `Stall`."""
        raise Stall

    def bulk_out(self, endpoint: int, data: bytes) -> None:
        """Take one transfer of the host. Raises `Stall`, `Gone`."""
        raise Stall

    def bulk_in(self, endpoint: int, length: int, now_s: float) -> bytes | memoryview | None:
        """One transfer of at most `length` bytes; None while there is nothing, empty for a zero-length packet.

        `now_s` is `time.monotonic()`. Raises `Stall`, `Gone`.
        """
        raise Stall

    def next_s(self, now_s: float) -> float | None:
        """When `bulk_in` may have something where it gave None; None: only after the host has done something."""
        return None

    def set_interface(self, interface: int, alternate: int) -> None:  # noqa: B027 - nothing is the usual answer
        """SET_INTERFACE came."""

    def halted(self, endpoint: int) -> None:  # noqa: B027 - nothing is the usual answer
        """SET_FEATURE(ENDPOINT_HALT) came."""

    def halt_cleared(self, endpoint: int) -> None:  # noqa: B027 - nothing is the usual answer
        """CLEAR_FEATURE(ENDPOINT_HALT) came."""

    def reset(self) -> None:  # noqa: B027 - nothing is the usual answer
        """The port was reset, or the device is plugged in again: state as after power-on."""

    def inject(self, fault: str, **parameters: Any) -> None:
        """Arm a fault by name. Raises `ValueError` for one that the device has not."""
        raise ValueError(f"{type(self).__name__} has no fault '{fault}'")

    def state(self) -> dict[str, Any]:
        """What tests may look at; JSON."""
        return {"counts": dict(self.counts)}

    def close(self) -> None:  # noqa: B027 - nothing is the usual answer
        """Let go of what it holds; idempotent."""
