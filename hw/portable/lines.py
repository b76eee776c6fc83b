"""Devices that answer a line with a line; runs unchanged on CPython 3.11+ and MicroPython 1.25+.

    device = LineDevice(*await asyncio.open_connection("192.168.1.30", 5025))
    print(await device.ask(b"*IDN?"))

On a board `uart = asyncio.StreamReader(machine.UART(1, 115200))` is both reader and writer: `LineDevice(uart, uart)`.
"""

import asyncio

DEADLINE_S = 1.0  # a serial instrument answers within 0.1 s
QUIET_S = 0.1  # a line at 9600 baud takes 0.08 s: what has been silent for longer has said all
LOST_S = 60.0  # longer than instruments measure for one answer
MAX_LINE_BYTES = 4096
MAX_LATE_LINES = 64


class DeviceError(Exception):
    """`reason` is `silent` (no answer in time), `gone` (the line ended), `garbled`, or `refused` (by the device)."""

    def __init__(self, reason: str, detail: str) -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(f"{reason}: {detail}")


class LineDevice:
    """A device behind a pair of streams, one question at a time. All methods raise `DeviceError`.

    After a time-out the answer may still come. The next question waits for it, within a deadline of its own, throws it
    away and is asked then; while the answer is owed nothing is asked (`silent`), so that none is taken for another's.
    One that was waited for in vain for `lost_s` in all is given up, and questions are asked again.
    """

    def __init__(
        self, reader, writer, end: bytes = b"\n", deadline_s: float = DEADLINE_S, lost_s: float = LOST_S
    ) -> None:
        self.deadline_s = deadline_s
        self.lost_s = lost_s
        self.late_lines = 0
        self._reader = reader
        self._writer = writer
        self._end = end
        self._lock = asyncio.Lock()
        self._owes = False
        self._unsettled = False
        self._waited_s = 0.0

    async def ask(self, question: bytes, deadline_s: float | None = None) -> bytes:
        """The line that answers `question`, without its end."""
        bound_s = self.deadline_s if deadline_s is None else deadline_s
        async with self._lock:
            if self._unsettled:
                await self._settle(bound_s)
            self._owes = self._unsettled = True
            self._waited_s = 0.0
            line = await self._bounded(self._exchange(question), bound_s)
            self._unsettled = False
            return line

    async def tell(self, command: bytes) -> None:
        """Send a command that has no answer."""
        async with self._lock:
            await self._bounded(self._write(command), self.deadline_s)

    async def close(self) -> None:
        """Hang up; safe to repeat."""
        writer, self._writer = self._writer, None
        if writer is None:
            return
        writer.close()
        try:
            await writer.wait_closed()
        except OSError:
            return  # it was broken already

    async def _settle(self, bound_s: float) -> None:
        """Wait for the answer that is owed, and throw away whatever an earlier question still brings."""
        for _ in range(MAX_LATE_LINES):
            try:
                await asyncio.wait_for(self._read(), bound_s if self._owes else QUIET_S)
            except asyncio.TimeoutError:
                if self._owes:
                    self._waited_s += bound_s
                    if self._waited_s < self.lost_s:
                        raise DeviceError("silent", "the answer to an earlier question has not come yet")
                return
            self.late_lines += 1
        raise DeviceError("garbled", "the device does not stop talking")

    async def _bounded(self, work, bound_s: float) -> bytes:
        try:
            return await asyncio.wait_for(work, bound_s)
        except asyncio.TimeoutError:
            raise DeviceError("silent", f"no answer within {bound_s:g} s")

    async def _exchange(self, question: bytes) -> bytes:
        await self._write(question)
        return await self._read()

    async def _write(self, line: bytes) -> bytes:
        if self._writer is None:
            raise DeviceError("gone", "the device is closed")
        try:
            self._writer.write(line + self._end)
            await self._writer.drain()
        except asyncio.TimeoutError:
            raise
        except OSError:
            raise DeviceError("gone", "the line ended")
        return b""

    async def _read(self) -> bytes:
        try:
            line = await self._reader.readline()
        except asyncio.TimeoutError:
            raise
        except OSError:
            raise DeviceError("gone", "the line ended")
        except ValueError:  # CPython's bound on a line
            self._owes = False
            raise DeviceError("garbled", "a line has no end")
        if not line.endswith(b"\n"):
            raise DeviceError("gone", "the line ended")
        self._owes = False
        if len(line) > MAX_LINE_BYTES:
            raise DeviceError("garbled", f"a line of {len(line)} bytes")
        return line.rstrip(b"\r\n")


class ScpiDevice(LineDevice):
    """An instrument that speaks SCPI (IEEE 488.2): every command is followed by a look at its error queue."""

    async def identity(self) -> list:
        """Manufacturer, model, serial number and firmware."""
        fields = [field.strip() for field in (await self.ask(b"*IDN?")).decode().split(",")]
        if len(fields) < 4:
            raise DeviceError("garbled", "an identity has four fields")
        return fields[:4]

    async def command(self, command: bytes) -> None:
        """Send and check. `DeviceError` (`refused`) with the oldest error, all of which are read."""
        await self.tell(command)
        first = b""
        for _ in range(MAX_LATE_LINES):
            answer = await self.ask(b"SYST:ERR?")
            if answer.lstrip(b"+").startswith(b"0"):
                break
            first = first or answer
        if first:
            raise DeviceError("refused", first.decode())
