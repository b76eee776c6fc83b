"""Many bulk transfers in flight at once, into memory of the caller: what pyusb, which blocks, cannot do.

libusb's asynchronous interface by ctypes, on the handle and the context that pyusb holds. They are private to pyusb,
and asked for in one place that says so when they are not there.
"""

from __future__ import annotations

import ctypes
import itertools
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np

from hw.usb.device import UsbDevice
from hw.usb.errors import UsbError, UsbReason, status_error, usb_error

COMPLETED, CANCELLED = 0, 3
BULK = 2
EVENTS_S = 0.1  # how long the event thread waits at most before it looks whether it shall end
_ERRNO = {-1: 5, -2: 22, -3: 13, -4: 19, -6: 16, -9: 32, -11: 12}
"""libusb_error -> errno, of those that submitting gives."""


class _Transfer(ctypes.Structure):
    """struct libusb_transfer, without its tail for isochronous packets."""


_Callback = ctypes.CFUNCTYPE(None, ctypes.POINTER(_Transfer))
_Transfer._fields_ = [
    ("dev_handle", ctypes.c_void_p),
    ("flags", ctypes.c_uint8),
    ("endpoint", ctypes.c_ubyte),
    ("type", ctypes.c_ubyte),
    ("timeout", ctypes.c_uint),
    ("status", ctypes.c_int),
    ("length", ctypes.c_int),
    ("actual_length", ctypes.c_int),
    ("callback", _Callback),
    ("user_data", ctypes.c_void_p),
    ("buffer", ctypes.c_void_p),
    ("num_iso_packets", ctypes.c_int),
]


class _Interval(ctypes.Structure):
    """struct timeval."""

    _fields_ = (("tv_sec", ctypes.c_long), ("tv_usec", ctypes.c_long))


class LibUsb:
    """The few functions of libusb that the queue needs, on pyusb's context."""

    def __init__(self, name: str, context: Any) -> None:
        self._context = context
        self._lib = ctypes.CDLL(name)  # an own object: pyusb has set other types on its
        pointer = ctypes.POINTER(_Transfer)
        self._lib.libusb_alloc_transfer.argtypes = [ctypes.c_int]
        self._lib.libusb_alloc_transfer.restype = pointer
        for function in ("libusb_submit_transfer", "libusb_cancel_transfer", "libusb_free_transfer"):
            getattr(self._lib, function).argtypes = [pointer]
        self._lib.libusb_free_transfer.restype = None
        events = self._lib.libusb_handle_events_timeout_completed
        events.argtypes = (ctypes.c_void_p, ctypes.POINTER(_Interval), ctypes.c_void_p)

    def allocate(self) -> Any:
        """A transfer; null when there is no memory."""
        return self._lib.libusb_alloc_transfer(0)

    def submit(self, transfer: Any) -> int:
        """0, or a libusb_error."""
        return self._lib.libusb_submit_transfer(transfer)

    def cancel(self, transfer: Any) -> int:
        """0, or a libusb_error: it has ended already."""
        return self._lib.libusb_cancel_transfer(transfer)

    def free(self, transfer: Any) -> None:
        """It must not be in flight."""
        self._lib.libusb_free_transfer(transfer)

    def handle_events(self, timeout_s: float) -> None:
        """Run callbacks of what ended; waits for one of them, or `timeout_s`."""
        interval = _Interval(int(timeout_s), int(timeout_s % 1 * 1e6))
        self._lib.libusb_handle_events_timeout_completed(self._context, ctypes.byref(interval), None)


def libusb_of(device: UsbDevice) -> tuple[LibUsb, int]:
    """libusb and the device's handle in it. Raises `UsbError` where pyusb does not hold them as expected."""
    try:
        inside = device.pyusb._ctx
        return LibUsb(inside.backend.lib._name, inside.backend.ctx), int(inside.handle.handle.value)
    except (AttributeError, TypeError) as error:
        detail = f"this version of pyusb does not hold libusb's handle where 1.2 and 1.3 do ({error})"
        raise UsbError(UsbReason.FAULT, detail) from error


@dataclass(frozen=True)
class Done:
    """A batch that ended: what became of each of its transfers, in order."""

    number: int
    host_t_s: float
    """`time.monotonic()` when its last transfer ended."""
    statuses: tuple[int, ...]
    lengths: tuple[int, ...]

    @property
    def failed(self) -> int:
        """The first status that is not COMPLETED; 0 when there is none."""
        return next((status for status in self.statuses if status != COMPLETED), COMPLETED)


@dataclass(eq=False)
class _Batch:
    """Transfers that belong together, and the memory they end in."""

    number: int
    memory: list[np.ndarray]
    transfers: list[Any]
    done: SimpleQueue[tuple[_Batch, float]] = field(repr=False)
    left: int = 0


_in_flight: dict[int, _Batch] = {}
"""Keeps what libusb and the kernel may still write to alive, whatever becomes of the queue."""
_keys = itertools.count(1)
_counting = threading.Lock()


def _ended(transfer: Any) -> None:
    key = transfer.contents.user_data
    with _counting:
        batch = _in_flight[key]
        batch.left -= 1
        if batch.left:
            return
        del _in_flight[key]
    batch.done.put((batch, time.monotonic()))


_ON_END = _Callback(_ended)


class BulkQueue:
    """Batches of transfers from one bulk endpoint, filled in the order of `submit`.

    `prepare`, `submit`, `take` and `stop` are one thread's; an event thread of its own only notes what ended. A batch
    ends once. Bound: the batches that were prepared.
    """

    def __init__(self, device: UsbDevice, endpoint: int, library: tuple[Any, int] | None = None) -> None:
        self._device, self._endpoint = device, endpoint
        self._library: Any
        self._library, self._handle = library or libusb_of(device)
        self._batches: dict[int, _Batch] = {}
        self._flying: dict[int, int] = {}
        """Number -> key in `_in_flight`."""
        self._done: SimpleQueue[tuple[_Batch, float]] = SimpleQueue()
        self._quit = threading.Event()
        self._events = threading.Thread(target=self._handle_events, name="usb-events", daemon=True)
        self._events.start()

    @property
    def flying(self) -> set[int]:
        """Numbers that were submitted and not taken."""
        return set(self._flying)

    def _handle_events(self) -> None:
        while not self._quit.is_set():
            self._library.handle_events(EVENTS_S)

    def prepare(self, number: int, memory: Sequence[np.ndarray]) -> None:
        """Batch `number` ends in these arrays (uint8, contiguous), one transfer each. It must not be in flight."""
        if number in self._batches:
            self._free(number)
        batch = _Batch(number, list(memory), [], self._done)
        for part in memory:
            transfer = self._library.allocate()
            if not transfer:
                raise UsbError(UsbReason.NO_MEMORY, f"{self._device.found.name}: no memory for a transfer")
            one = transfer.contents
            one.dev_handle, one.endpoint, one.type, one.timeout = self._handle, self._endpoint, BULK, 0
            one.buffer, one.length, one.callback = part.ctypes.data, part.nbytes, _ON_END
            batch.transfers.append(transfer)
        self._batches[number] = batch

    def submit(self, number: int) -> None:
        """Put the batch behind those in flight. Raises `UsbError`; what was put is then cancelled, and ends as such."""
        batch, key = self._batches[number], next(_keys)
        batch.left = len(batch.transfers)
        _in_flight[key] = batch
        self._flying[number] = key
        for k, transfer in enumerate(batch.transfers):
            transfer.contents.user_data = key
            transfer.contents.status, transfer.contents.actual_length = CANCELLED, 0
            error = self._library.submit(transfer)
            if error:
                self._take_back(batch, key, k)
                number_ = _ERRNO.get(error, 5)
                what = f"{self._device.found.name}: queueing a transfer of {transfer.contents.length} bytes"
                found = self._device.found
                raise usb_error(OSError(number_, f"libusb error {error}"), what, found.bus, found.address)

    def _take_back(self, batch: _Batch, key: int, submitted: int) -> None:
        """Cancel the first `submitted` transfers; the batch ends with the last of them, or now."""
        for transfer in batch.transfers[submitted:]:
            transfer.contents.user_data = key
            _ended(transfer)
        for transfer in batch.transfers[:submitted]:
            self._library.cancel(transfer)

    def take(self, timeout_s: float) -> Done | None:
        """The next batch that ended; None when none did in `timeout_s`."""
        try:
            batch, host_t_s = self._done.get(timeout=timeout_s) if timeout_s > 0 else self._done.get_nowait()
        except Empty:
            return None
        self._flying.pop(batch.number, None)
        ends = [(one.contents.status, one.contents.actual_length) for one in batch.transfers]
        return Done(batch.number, host_t_s, tuple(s for s, _ in ends), tuple(n for _, n in ends))

    def error(self, status: int, what: str) -> UsbError:
        """What a transfer that ended with `status` means."""
        found = self._device.found
        return status_error(status, f"{found.name}: {what}", found.bus, found.address)

    def cancel(self, timeout_s: float = 2.0) -> set[int]:
        """Cancel all that is in flight, newest first, and wait for its end; numbers that did not end in time.

        What ended is dropped. Memory of numbers that did not end belongs to the kernel for good.
        """
        deadline_s = time.monotonic() + timeout_s
        for number in reversed(list(self._flying)):
            for transfer in reversed(self._batches[number].transfers):
                self._library.cancel(transfer)
        while self._flying and (left_s := deadline_s - time.monotonic()) > 0:
            self.take(left_s)
        return self.flying

    def stop(self, timeout_s: float = 2.0) -> set[int]:
        """`cancel`, end the event thread and free what ended; to be called before the device is closed. Idempotent."""
        stuck = self.cancel(timeout_s) if not self._quit.is_set() else self.flying
        self._quit.set()
        self._events.join()
        for number in set(self._batches) - stuck:
            self._free(number)
        return stuck

    def _free(self, number: int) -> None:
        for transfer in self._batches.pop(number).transfers:
            self._library.free(transfer)
