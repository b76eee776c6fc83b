"""The port that an emulated device is plugged into: standard requests, endpoint queues, halts and claims.

What every link shares. Errors of transfers are those that Linux gives its users, as negative errno.
"""

from __future__ import annotations

import errno
import sys
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hw.twin.usb import descriptors
from hw.twin.usb.device import Gone, Setup, Stall, UsbModel

TYPE_MASK, VENDOR = 0x60, 0x40
RECIPIENT_MASK, TO_INTERFACE, TO_ENDPOINT = 0x1F, 1, 2
IN = 0x80

FAULTS = ("usb.nak", "usb.error", "usb.babble", "usb.gone")
"""Faults that every device has; `docs/emulated-devices.md` says what they do."""

Buffer = bytes | memoryview


@dataclass(eq=False)
class Transfer:
    """One request of the host on an endpoint; `setup` on endpoint 0 only."""

    owner: Any
    """Who submitted it: the host's file."""
    token: int
    """What the owner calls it."""
    endpoint: int
    length: int
    """Outward: of `data`; inward: room for the answer."""
    data: bytes = b""
    setup: Setup | None = None
    status: int = 0
    """0 or a negative errno, once finished."""
    answer: Buffer = b""
    actual: int = 0
    """Bytes that went over."""
    extra: Any = field(default=None, repr=False)
    """The owner's own."""


class Port:
    """Used by one thread. `finished` is called with each transfer that ended, in order of each endpoint."""

    def __init__(self, model: UsbModel, finished: Callable[[Transfer], None]) -> None:
        self.model = model
        self.gone = False
        self._finished = finished
        self._halted: set[int] = set()
        self._claims: dict[int, Any] = {}
        self._faults: dict[str, dict[str, Any]] = {}
        configuration = model.configuration()
        self._interface_of = descriptors.endpoint_interfaces(configuration)
        self._queues: dict[int, deque[Transfer]] = {endpoint: deque() for endpoint in self._interface_of}

    # -- claims ------------------------------------------------------------

    def claim(self, owner: Any, interface: int) -> int:
        """0 or the errno: ENOENT for no such interface, EBUSY while another holds it."""
        if interface not in self._interface_of.values():
            return errno.ENOENT
        holder = self._claims.setdefault(interface, owner)
        return 0 if holder is owner else errno.EBUSY

    def release(self, owner: Any, interface: int) -> int:
        """0 or EINVAL when it was not `owner`'s."""
        if self._claims.get(interface) is not owner:
            return errno.EINVAL
        del self._claims[interface]
        return 0

    def leave(self, owner: Any) -> None:
        """The owner's file was closed: its transfers end with it, its interfaces are free."""
        for queue in self._queues.values():
            for transfer in [one for one in queue if one.owner is owner]:
                queue.remove(transfer)
        self._claims = {number: holder for number, holder in self._claims.items() if holder is not owner}

    # -- transfers ------------------------------------------------------------

    def submit(self, transfer: Transfer, now_s: float) -> int:
        """Take a transfer: 0, or the errno with which it is refused: ENODEV, ENOENT, EBUSY."""
        if self.gone:
            return errno.ENODEV
        if transfer.setup is not None:
            refused = self._refusal_of_control(transfer)
            if not refused:
                self._control(transfer, transfer.setup)
            return refused
        if transfer.endpoint not in self._queues:
            return errno.ENOENT
        refused = self.claim(transfer.owner, self._interface_of[transfer.endpoint])  # Linux claims on first use
        if refused:
            return refused
        self._queues[transfer.endpoint].append(transfer)
        self._pump_endpoint(transfer.endpoint, now_s)
        return 0

    def cancel(self, owner: Any, token: int) -> bool:
        """End a waiting transfer with ENOENT; False when there is none of that name."""
        for queue in self._queues.values():
            for transfer in queue:
                if transfer.owner is owner and transfer.token == token:
                    queue.remove(transfer)
                    self._end(transfer, -errno.ENOENT)
                    return True
        return False

    def pump(self, now_s: float) -> None:
        """Let waiting transfers go on."""
        for endpoint in self._queues:
            self._pump_endpoint(endpoint, now_s)

    def due_s(self, now_s: float) -> float | None:
        """When `pump` is worth calling without the host having done anything."""
        if self.gone or not any(self._queues.values()):
            return None
        times = [self.model.next_s(now_s), self._faults.get("usb.nak", {}).get("until_s")]
        return min((time for time in times if time is not None), default=None)

    def _pump_endpoint(self, endpoint: int, now_s: float) -> None:
        queue = self._queues[endpoint]
        while queue and not self.gone and not self._naks(endpoint, now_s):
            transfer = queue[0]
            if endpoint in self._halted:
                queue.popleft()
                self._end(transfer, -errno.EPIPE)
                continue
            if self._spoilt(transfer):
                queue.popleft()
                continue
            try:
                if endpoint & IN:
                    answer = self.model.bulk_in(endpoint, transfer.length, now_s)
                    if answer is None:
                        return
                    queue.popleft()
                    self._answer(transfer, answer)
                else:
                    queue.popleft()
                    self.model.bulk_out(endpoint, transfer.data)
                    transfer.actual = transfer.length
                    self._end(transfer, 0)
            except (Stall, Gone, Exception) as error:  # noqa: BLE001 - a model's fault must not take the bus down
                if queue and queue[0] is transfer:
                    queue.popleft()
                self._failed(transfer, error)

    def _answer(self, transfer: Transfer, answer: Buffer) -> None:
        transfer.actual = min(len(answer), transfer.length)
        transfer.answer = answer if len(answer) == transfer.actual else memoryview(answer)[: transfer.actual]
        self._end(transfer, 0 if len(answer) <= transfer.length else -errno.EOVERFLOW)

    def _failed(self, transfer: Transfer, error: Exception) -> None:
        if isinstance(error, Gone):
            self._end(transfer, -errno.ESHUTDOWN)
            self.unplug()
        elif isinstance(error, Stall):
            if transfer.setup is None:
                self._halted.add(transfer.endpoint)
            self._end(transfer, -errno.EPIPE)
        else:
            traceback.print_exception(error, file=sys.stderr)
            self.model.counts["faults of the model"] += 1
            self._end(transfer, -errno.EPROTO)

    def _end(self, transfer: Transfer, status: int) -> None:
        transfer.status = status
        self._finished(transfer)

    def unplug(self) -> None:
        """The device is gone: all that waits ends with ESHUTDOWN. Idempotent."""
        self.gone = True
        self._end_all(-errno.ESHUTDOWN)

    def _end_all(self, status: int) -> None:
        for queue in self._queues.values():
            while queue:
                self._end(queue.popleft(), status)

    def reset(self) -> None:
        """The host resets the port: what waits ends with EPROTO, nothing is halted, the device is as after power-on."""
        self._halted.clear()
        self._end_all(-errno.EPROTO)
        self.model.reset()

    # -- endpoint 0 ------------------------------------------------------------

    def _refusal_of_control(self, transfer: Transfer) -> int:
        setup = transfer.setup
        assert setup is not None
        recipient = setup.request_type & RECIPIENT_MASK
        number = setup.index & 0xFF
        if recipient == TO_ENDPOINT:
            number = self._interface_of.get(number, -1)
        if recipient in (TO_INTERFACE, TO_ENDPOINT) and setup.request_type & TYPE_MASK != VENDOR:
            holder = self._claims.get(number)
            return errno.EBUSY if holder is not None and holder is not transfer.owner else 0
        return 0

    def _control(self, transfer: Transfer, setup: Setup) -> None:
        try:
            if setup.request_type & TYPE_MASK == 0:
                answer = self._standard(setup)
            else:
                answer = self.model.control(setup, transfer.data)
            transfer.answer = answer[: transfer.length] if setup.inward else b""
            transfer.actual = len(transfer.answer) if setup.inward else len(transfer.data)
            self._end(transfer, 0)
        except (Stall, Gone, Exception) as error:  # noqa: BLE001 - a model's fault must not take the bus down
            self._failed(transfer, error)

    def _standard(self, setup: Setup) -> bytes:
        endpoint = setup.index & 0xFF
        to_endpoint = setup.request_type & RECIPIENT_MASK == TO_ENDPOINT
        answer = b""
        match setup.request:
            case 0:  # GET_STATUS
                answer = bytes([to_endpoint and endpoint in self._halted, 0])
            case 1 | 3:  # CLEAR_FEATURE, SET_FEATURE; remote wake-up and link power are accepted
                if to_endpoint and setup.value == 0:
                    self._feature(endpoint, setup.request == 3)
            case 6:  # GET_DESCRIPTOR
                answer = self._descriptor(setup.value >> 8, setup.value & 0xFF)
            case 8:  # GET_CONFIGURATION
                answer = b"\1"
            case 9:  # SET_CONFIGURATION
                self.set_configuration()
            case 10:  # GET_INTERFACE
                answer = b"\0"
            case 11:  # SET_INTERFACE
                self.set_interface(setup.index, setup.value)
            case 0x30 | 0x31 if self.model.speed_mbps >= 5000:  # SET_SEL, SET_ISOCH_DELAY: times on the wire
                pass
            case _:
                raise Stall
        return answer

    def _feature(self, endpoint: int, halt: bool) -> None:
        if endpoint not in self._queues:
            raise Stall
        (self._halt if halt else self.clear_halt)(endpoint)

    def _descriptor(self, kind: int, index: int) -> bytes:
        if kind == descriptors.DEVICE:
            return self.model.device_descriptor()
        if kind == descriptors.CONFIGURATION and index == 0:
            return self.model.configuration()
        if kind == descriptors.STRING and index == 0:
            return descriptors.languages()
        if kind == descriptors.BOS and self.model.speed_mbps >= 5000:
            return descriptors.capabilities()
        strings = self.model.strings()
        if kind == descriptors.STRING and index in strings:
            return descriptors.string(strings[index])
        raise Stall

    def set_configuration(self) -> None:
        """SET_CONFIGURATION: endpoints start afresh."""
        self._halted.clear()

    def set_interface(self, interface: int, alternate: int) -> None:
        """SET_INTERFACE: its endpoints start afresh."""
        self._halted -= {one for one, number in self._interface_of.items() if number == interface}
        self.model.set_interface(interface, alternate)

    def _halt(self, endpoint: int) -> None:
        self._halted.add(endpoint)
        self.model.halted(endpoint)

    def clear_halt(self, endpoint: int) -> None:
        """CLEAR_FEATURE(ENDPOINT_HALT); harmless on one that is not halted."""
        self._halted.discard(endpoint)
        self.model.halt_cleared(endpoint)

    # -- faults ------------------------------------------------------------

    def inject(self, fault: str, now_s: float, **parameters: Any) -> None:
        """Arm a fault of the bus or of the model. Raises `ValueError` for one that there is not."""
        if fault not in FAULTS:
            self.model.inject(fault, **parameters)
        elif fault == "usb.gone":
            self.unplug()
        elif fault == "usb.nak":
            self._faults[fault] = {"endpoint": int(parameters["endpoint"]), "until_s": now_s + parameters["seconds"]}
        else:
            self._faults[fault] = {"endpoint": int(parameters["endpoint"]), "left": int(parameters.get("times", 1))}

    def _naks(self, endpoint: int, now_s: float) -> bool:
        fault = self._faults.get("usb.nak")
        if fault is None or fault["endpoint"] != endpoint:
            return False
        if now_s >= fault["until_s"]:
            del self._faults["usb.nak"]
            return False
        return True

    def _spoilt(self, transfer: Transfer) -> bool:
        for name, status in (("usb.error", -errno.EPROTO), ("usb.babble", -errno.EOVERFLOW)):
            fault = self._faults.get(name)
            if fault is not None and fault["endpoint"] == transfer.endpoint:
                fault["left"] -= 1
                if not fault["left"]:
                    del self._faults[name]
                self._end(transfer, status)
                return True
        return False
