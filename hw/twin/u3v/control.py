"""GenCP on the camera's control endpoints: commands in, acknowledges out."""

from __future__ import annotations

import struct
import time
from collections import deque

from hw.twin.u3v.registers import BAD_HEADER, BAD_PARAMETER, NO_RESEND, NOT_IMPLEMENTED, OK, Memory, Refused

MAGIC = 0x43563355
HEADER = struct.Struct("<IHHHH")
READ, WRITE, PENDING = 0x0800, 0x0802, 0x0805
RESEND = 0x8000
ACK_WANTED = 0x4000


class Control:
    """Answers commands one after another; faults make it slow, hesitant or confused."""

    def __init__(self, memory: Memory, max_command: int, max_ack: int) -> None:
        self._memory = memory
        self._max_command, self._max_ack = max_command, max_ack
        self._acks: deque[tuple[float, bytes]] = deque()
        self.faults: dict[str, dict[str, float]] = {}
        """`pending_ack`, `stray_ack`, `slow_control`, `no_ack`: each with `times` left and its own parameters."""

    def clear(self) -> None:
        """Forget what was not fetched."""
        self._acks.clear()

    def leave_behind(self) -> None:
        """An acknowledge that a host before this one did not fetch."""
        self._acks.append((0.0, _ack(OK, READ, 0xFFF0, bytes(4))))

    def command(self, data: bytes) -> None:
        """A command from the host."""
        now_s = time.monotonic()
        if len(data) < HEADER.size:
            return  # nobody to answer to
        magic, flags, command, size, request = HEADER.unpack_from(data)
        if magic != MAGIC or HEADER.size + size != len(data) or len(data) > self._max_command:
            self._acks.append((now_s, _ack(BAD_HEADER, command, request)))
            return
        delay_s = self._hesitate(now_s, command, request)
        if self._take("no_ack") is not None:
            return
        if flags & RESEND:
            answer = _ack(NO_RESEND, command, request)
        else:
            answer = self._execute(command, request, data[HEADER.size :])
        if flags & ACK_WANTED:
            self._acks.append((now_s + delay_s, answer))

    def _hesitate(self, now_s: float, command: int, request: int) -> float:
        """Faults before the answer; how late it will be."""
        if self._take("stray_ack") is not None:
            self._acks.append((now_s, _ack(OK, command, (request - 1) & 0xFFFF)))
        if (fault := self._take("pending_ack")) is not None:
            self._acks.append((now_s, _ack(OK, PENDING, request, struct.pack("<HH", 0, int(fault["announce_ms"])))))
            return fault["seconds"]
        if (fault := self._take("slow_control")) is not None:
            return fault["seconds"]
        return 0.0

    def _take(self, name: str) -> dict[str, float] | None:
        fault = self.faults.get(name)
        if fault is not None:
            fault["times"] -= 1
            if fault["times"] <= 0:
                del self.faults[name]
        return fault

    def _execute(self, command: int, request: int, payload: bytes) -> bytes:
        try:
            if command == READ and len(payload) == 12:
                address, _, size = struct.unpack("<QHH", payload)
                if size > self._max_ack - HEADER.size:
                    raise Refused(BAD_PARAMETER)
                return _ack(OK, command, request, self._memory.read(address, size))
            if command == WRITE and len(payload) > 8:
                self._memory.write(struct.unpack_from("<Q", payload)[0], payload[8:])
                return _ack(OK, command, request, struct.pack("<HH", 0, len(payload) - 8))
            raise Refused(BAD_PARAMETER if command in (READ, WRITE) else NOT_IMPLEMENTED)
        except Refused as refused:
            return _ack(refused.status, command, request)

    def answer(self, length: int, now_s: float) -> bytes | None:
        """The next acknowledge, when its time has come."""
        if not self._acks or now_s < self._acks[0][0]:
            return None
        return self._acks.popleft()[1]

    def due_s(self) -> float | None:
        """When the next acknowledge is there."""
        return self._acks[0][0] if self._acks else None


def _ack(status: int, command: int, request: int, payload: bytes = b"") -> bytes:
    return HEADER.pack(MAGIC, status, command | 1, len(payload), request) + payload
