"""The plainest device: what is sent comes back. For tests of the bus itself and of a host's own USB code."""

from __future__ import annotations

from collections import deque
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from hw.twin.usb import descriptors
from hw.twin.usb.device import Gone, Setup, Stall, UsbModel

BULK_OUT, BULK_IN, SOURCE_IN = 0x01, 0x81, 0x82
VENDOR_ID, PRODUCT_ID = 0x1209, 0x0001  # pid.codes, for tests
VENDOR_TRIPLE = (0xFF, 0, 0)
SET_REGISTER, GET_REGISTER = 1, 2
REGISTERS = 16


class Loopback(UsbModel):
    """Interface 0 echoes: endpoint 0x01 to 0x81, one transfer for one. Interface 1 is a source without end, 0x82.

    Vendor requests: 1 writes, 2 reads register `value` (up to 64 bytes).
    """

    class Settings(BaseModel):
        """Options of `plug`."""

        model_config = ConfigDict(extra="forbid")

        serial: str = "LOOP0001"
        delay_s: float = Field(default=0.0, ge=0)
        """How long an echo takes."""
        source_bytes: int = Field(default=1 << 20, ge=1)
        """Bytes that the source has at a time: a transfer is at most as long."""
        superspeed: bool = False

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._settings = settings
        self.speed_mbps = 5000 if settings.superspeed else 480
        self._source = memoryview(bytes(k & 0xFF for k in range(256)) * (settings.source_bytes // 256 + 1))
        self.reset()

    def device_descriptor(self) -> bytes:
        return descriptors.device(VENDOR_ID, PRODUCT_ID, usb=0x0300 if self._settings.superspeed else 0x0200)

    def configuration(self) -> bytes:
        packet, burst = (1024, 15) if self._settings.superspeed else (512, None)
        one, other, source = (
            descriptors.endpoint(address, packet=packet, burst=burst) for address in (BULK_OUT, BULK_IN, SOURCE_IN)
        )
        return descriptors.configuration(
            descriptors.interface(0, VENDOR_TRIPLE, one, other), descriptors.interface(1, VENDOR_TRIPLE, source)
        )

    def strings(self) -> dict[int, str]:
        return {1: "photometryd", 2: "Emulated loopback", 3: self._settings.serial}

    def reset(self) -> None:
        self._echoes: deque[tuple[float | None, bytes]] = deque()
        self._registers = [b""] * REGISTERS
        self._stalls: set[int] = set()
        self._gone = False

    def control(self, setup: Setup, data: bytes) -> bytes:
        if setup.value >= REGISTERS or setup.request not in (SET_REGISTER, GET_REGISTER):
            raise Stall
        if setup.request == GET_REGISTER:
            return self._registers[setup.value]
        self._registers[setup.value] = data[:64]
        return b""

    def bulk_out(self, endpoint: int, data: bytes) -> None:
        self._fail(endpoint)
        self.counts["bytes out"] += len(data)
        self._echoes.append((None, data))

    def bulk_in(self, endpoint: int, length: int, now_s: float) -> bytes | memoryview | None:
        self._fail(endpoint)
        if endpoint == SOURCE_IN:
            self.counts["bytes of source"] += min(length, self._settings.source_bytes)
            return self._source[: min(length, self._settings.source_bytes)]
        if not self._echoes:
            return None
        due_s, data = self._echoes[0]
        if due_s is None:  # the host has sent it since this was last asked
            due_s = now_s + self._settings.delay_s
            self._echoes[0] = (due_s, data)
        if now_s < due_s:
            return None
        self._echoes.popleft()
        if len(data) > length:
            self._echoes.appendleft((0.0, data[length:]))
        self.counts["bytes in"] += min(len(data), length)
        return data[:length]

    def next_s(self, now_s: float) -> float | None:
        return self._echoes[0][0] if self._echoes else None

    def _fail(self, endpoint: int) -> None:
        if self._gone:
            raise Gone
        if endpoint in self._stalls:
            self._stalls.discard(endpoint)
            raise Stall

    def halt_cleared(self, endpoint: int) -> None:
        self.counts["halts cleared"] += 1

    def inject(self, fault: str, **parameters: Any) -> None:
        """`stall` (endpoint): the next transfer there; `gone`: at the next transfer."""
        if fault == "stall":
            self._stalls.add(int(parameters["endpoint"]))
        elif fault == "gone":
            self._gone = True
        else:
            super().inject(fault, **parameters)
