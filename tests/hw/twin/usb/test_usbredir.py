from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hw.twin.usb.device import Stall, UsbModel
from hw.twin.usb.loopback import Loopback
from hw.twin.usb.usbredir import Cable, Kind, ProtocolError, Redirection

OUT, IN, SOURCE = 0x01, 0x81, 0x82
ALL = 0xFF
"""Capabilities of QEMU's end."""

RECORDED = """
03000000000000000000000000000000
03000000000000000000000000000000
640000000a0000000080910600000000800680c0000100000800
640000000a000000308091060000000000310078280000000000
640000000a00000050809106000000008006807a000100001200
640000000a0000008080910600000000800680e2000f00000500
640000000a000000b0809106000000008006802c000f00001600
640000000a000000e080910600000000800680e8000200000900
640000000a00000010819106000000008006809a000200004200
640000000a00000040819106000000008006808a00030000ff00
640000000a0000007081910600000000800680b202030904ff00
640000000a000000a0819106000000008006805e01030904ff00
640000000a000000d0819106000000008006805e03030904ff00
0600000001000000008291060000000001
"""
"""What QEMU 7.2 says after its hello while Linux 6.1 enumerates a SuperSpeed device."""


def hello(capabilities: int = ALL) -> bytes:
    return struct.pack("<III64sI", 0, 68, 0, b"qemu usb-redir guest 7.2.22", capabilities)


def packet(kind: int, payload: bytes = b"", number: int = 0) -> bytes:
    return struct.pack("<IIQ", kind, len(payload), number) + payload


def control(
    number: int, request_type: int, request: int, value: int, index: int, length: int, data: bytes = b""
) -> bytes:
    endpoint = request_type & 0x80
    head = struct.pack("<BBBBHHH", endpoint, request, request_type, 0, value, index, length)
    return packet(Kind.CONTROL, head + data, number)


def bulk(number: int, endpoint: int, length: int = 0, data: bytes = b"") -> bytes:
    length = length or len(data)
    return packet(Kind.BULK, struct.pack("<BBHIH", endpoint, 0, length & 0xFFFF, 0, length >> 16) + data, number)


class Guest:
    """What the other end sees: packets as (kind, number, payload)."""

    def __init__(self, model: UsbModel) -> None:
        self.end = Redirection(model, self._take)
        self.sent = b""
        self.wide = False

    def _take(self, parts: list[bytes | memoryview]) -> None:
        self.sent += b"".join(parts)

    def meet(self, capabilities: int = ALL) -> list[tuple[int, int, bytes]]:
        self.end.begin()
        first = self.read()
        self.end.receive(hello(capabilities), 0.0)
        self.wide = bool(capabilities & 0x20)
        return first + self.read()

    def tell(self, data: bytes, now_s: float = 0.0) -> list[tuple[int, int, bytes]]:
        self.end.receive(data, now_s)
        return self.read()

    def read(self) -> list[tuple[int, int, bytes]]:
        header = struct.Struct("<IIQ" if self.wide else "<III")
        found = []
        while self.sent:
            kind, size, number = header.unpack_from(self.sent)
            found.append((kind, number, self.sent[header.size : header.size + size]))
            assert len(found[-1][2]) == size
            self.sent = self.sent[header.size + size :]
        return found


class Notifier(Loopback):
    """A loopback with an interrupt endpoint that tells what is put on its list."""

    def __init__(self) -> None:
        super().__init__(Loopback.Settings())
        self.news: list[bytes | Stall] = []

    def configuration(self) -> bytes:
        plain = super().configuration()
        interrupts = bytes([7, 5, 0x83, 3, 16, 0, 8, 7, 5, 0x03, 3, 16, 0, 8])
        return plain[:2] + struct.pack("<H", len(plain) + 14) + plain[4:] + interrupts

    def bulk_in(self, endpoint: int, length: int, now_s: float) -> bytes | memoryview | None:
        if endpoint != 0x83:
            return super().bulk_in(endpoint, length, now_s)
        if not self.news:
            return None
        news = self.news.pop(0)
        if isinstance(news, Stall):
            raise news
        return news


@pytest.fixture
def guest() -> Guest:
    one = Guest(Loopback(Loopback.Settings()))
    one.meet()
    return one


@pytest.mark.parametrize("superspeed", [False, True])
def test_a_device_introduces_itself_once_the_guest_has_said_hello(superspeed: bool) -> None:
    said = Guest(Loopback(Loopback.Settings(superspeed=superspeed))).meet()
    assert [kind for kind, _, _ in said] == [Kind.HELLO, Kind.INTERFACE_INFO, Kind.EP_INFO, Kind.DEVICE_CONNECT]
    interfaces, endpoints, device = (payload for _, _, payload in said[1:])
    assert interfaces == b"\2\0\0\0" + b"\0\1".ljust(32, b"\0") + b"\xff\xff".ljust(32, b"\0") + bytes(64)
    kinds, numbers, sizes = endpoints[:32], endpoints[64:96], struct.unpack("<32H", endpoints[96:])
    there = {at: kind for at, kind in enumerate(kinds) if kind != 255}
    assert there == {0: 0, 16: 0, 1: 2, 17: 2, 18: 2}
    assert (numbers[1], numbers[17], numbers[18]) == (0, 0, 1)
    assert sizes[17] == (1024 if superspeed else 512)
    assert device == bytes([3 if superspeed else 2, 0, 0, 0]) + struct.pack("<HHH", 0x1209, 1, 0x0100)


def test_linux_enumerates_a_device_as_recorded() -> None:
    guest = Guest(Loopback(Loopback.Settings(superspeed=True)))
    guest.meet()
    said = guest.tell(bytes.fromhex(RECORDED))
    assert [kind for kind, _, _ in said] == [Kind.CONTROL] * 11 + [Kind.CONFIGURATION_STATUS]
    assert all(number >> 16 == 0x0691 for _, number, _ in said) and all(payload[3] == 0 for _, _, payload in said[:-1])
    device, isoch_delay, _, head, capabilities = (payload[10:] for _, _, payload in said[:5])
    assert (device.hex(), isoch_delay) == ("1201000300000009", b"")
    assert capabilities == bytes.fromhex("050f160002 07100200000000 0a1003000e0001000000")
    assert head == capabilities[:5]
    assert said[6][2][10:] == guest.end.model.configuration()
    assert said[8][2][12:].decode("utf-16-le") == "Emulated loopback"


def test_an_old_guest_gets_no_more_than_it_knows() -> None:
    guest = Guest(Loopback(Loopback.Settings()))
    said = guest.meet(capabilities=0)
    assert len(said[2][2]) == 96 and len(said[3][2]) == 8
    narrow = struct.pack("<III", Kind.BULK, 8 + 2, 7) + struct.pack("<BBHI", OUT, 0, 2, 0) + b"ab"
    assert guest.tell(narrow) == [(Kind.BULK, 7, struct.pack("<BBHI", OUT, 0, 2, 0))]


def test_packets_may_come_in_any_pieces(guest: Guest) -> None:
    stream = bulk(1, OUT, data=b"abc") + bulk(2, IN, 512) + control(3, 0xC0, 2, 0, 0, 64)
    answers = [one for k in range(len(stream)) for one in guest.tell(stream[k : k + 1])]
    assert [number for _, number, _ in answers] == [1, 2, 3]
    assert answers[1][2] == struct.pack("<BBHIH", IN, 0, 3, 0, 0) + b"abc"


def test_transfers_beyond_64_kib_are_whole(guest: Guest) -> None:
    ((_, number, payload),) = guest.tell(bulk(1 << 40, SOURCE, 300_000))
    assert number == 1 << 40 and len(payload) == 10 + 300_000
    assert struct.unpack_from("<BBHIH", payload) == (SOURCE, 0, 300_000 & 0xFFFF, 0, 300_000 >> 16)
    assert guest.tell(bulk(2, OUT, data=bytes(70_000)))[0][2] == struct.pack("<BBHIH", OUT, 0, 70_000 & 0xFFFF, 0, 1)


def test_control_requests_go_both_ways_and_unknown_ones_stall(guest: Guest) -> None:
    ((_, number, payload),) = guest.tell(control(4, 0x40, 1, 3, 0, 5, data=b"hello"))
    assert (number, payload) == (4, struct.pack("<BBBBHHH", 0, 1, 0x40, 0, 3, 0, 5))
    ((_, _, payload),) = guest.tell(control(5, 0xC0, 2, 3, 0, 64))
    assert payload == struct.pack("<BBBBHHH", 0x80, 2, 0xC0, 0, 3, 0, 5) + b"hello"
    ((_, _, payload),) = guest.tell(control(6, 0xC0, 99, 0, 0, 64))
    assert payload == struct.pack("<BBBBHHH", 0x80, 99, 0xC0, 4, 0, 0, 0)


def test_configurations_and_alternate_settings_are_told(guest: Guest) -> None:
    assert guest.tell(packet(Kind.GET_CONFIGURATION, number=1)) == [(Kind.CONFIGURATION_STATUS, 1, b"\0\0")]
    assert guest.tell(packet(Kind.SET_CONFIGURATION, b"\1", 2)) == [(Kind.CONFIGURATION_STATUS, 2, b"\0\1")]
    assert guest.tell(packet(Kind.SET_CONFIGURATION, b"\7", 3)) == [(Kind.CONFIGURATION_STATUS, 3, b"\2\1")]
    assert guest.tell(packet(Kind.SET_ALT_SETTING, b"\1\0", 4)) == [(Kind.ALT_SETTING_STATUS, 4, b"\0\1\0")]
    assert guest.tell(packet(Kind.GET_ALT_SETTING, b"\1", 5)) == [(Kind.ALT_SETTING_STATUS, 5, b"\0\1\0")]


def test_a_waiting_transfer_is_answered_when_it_is_due() -> None:
    guest = Guest(Loopback(Loopback.Settings(delay_s=2.0)))
    guest.meet()
    guest.tell(bulk(1, OUT, data=b"x"))
    assert guest.tell(bulk(2, IN, 8)) == [] and guest.end.due_s(0.0) == 2.0
    guest.end.pump(2.0)
    assert [number for _, number, _ in guest.read()] == [2] and guest.end.due_s(2.0) is None


def test_a_cancelled_transfer_is_answered_once_and_one_that_ended_not_again(guest: Guest) -> None:
    assert guest.tell(bulk(1, IN, 8)) == []
    assert guest.tell(packet(Kind.CANCEL, number=1)) == [(Kind.BULK, 1, struct.pack("<BBHIH", IN, 1, 0, 0, 0))]
    assert guest.tell(packet(Kind.CANCEL, number=1)) == []
    assert guest.tell(bulk(2, OUT, data=b"x") + bulk(3, IN, 8))[1][2][-1:] == b"x"


@pytest.mark.parametrize(("fault", "status"), [("stall", 4), ("usb.error", 3), ("usb.babble", 6)])
def test_faults_come_as_their_status(guest: Guest, fault: str, status: int) -> None:
    guest.end.port.inject(fault, 0.0, endpoint=OUT)
    assert guest.tell(bulk(1, OUT, data=b"x"))[0][2][1] == status
    clear = control(2, 0x02, 1, 0, OUT, 0)
    assert guest.tell(clear + bulk(3, OUT, data=b"x"))[1][2][1] == 0


def test_unknown_endpoints_are_refused(guest: Guest) -> None:
    assert guest.tell(bulk(1, 0x8F, 8))[0][2][1] == 2
    assert guest.tell(packet(Kind.START_INTERRUPT, b"\x8f", 2)) == [(Kind.INTERRUPT_STATUS, 2, b"\2\x8f")]


def test_a_reset_ends_what_waits_and_forgets(guest: Guest) -> None:
    guest.tell(control(1, 0x40, 1, 0, 0, 4, data=b"kept") + bulk(2, IN, 8))
    assert guest.tell(packet(Kind.RESET)) == [(Kind.BULK, 2, struct.pack("<BBHIH", IN, 3, 0, 0, 0))]
    assert guest.tell(control(3, 0xC0, 2, 0, 0, 64))[0][2][10:] == b""


def test_a_pulled_device_answers_nothing_more(guest: Guest) -> None:
    guest.tell(bulk(1, IN, 8))
    guest.end.unplug()
    assert guest.read() == [(Kind.DEVICE_DISCONNECT, 0, b"")]
    assert guest.tell(bulk(2, OUT, data=b"x")) == []


def test_interrupts_are_told_as_they_come_until_the_guest_stops_listening() -> None:
    model = Notifier()
    guest = Guest(model)
    guest.meet()
    assert guest.tell(packet(Kind.START_INTERRUPT, b"\x83", 9)) == [(Kind.INTERRUPT_STATUS, 9, b"\0\x83")]
    for k in range(3):
        model.news = [b"news%d" % k]
        guest.end.pump(0.0)
        assert guest.read() == [(Kind.INTERRUPT, k, struct.pack("<BBH", 0x83, 0, 5) + b"news%d" % k)]
        guest.end.pump(0.0)
    assert guest.tell(packet(Kind.RESET)) == []  # the guest goes on listening after a reset
    model.news = [b"after"]
    guest.end.pump(0.0)
    assert len(guest.read()) == 1
    assert guest.tell(packet(Kind.STOP_INTERRUPT, b"\x83", 10)) == [(Kind.INTERRUPT_STATUS, 10, b"\0\x83")]
    model.news = [b"unheard"]
    guest.end.pump(0.0)
    assert guest.read() == [] and guest.end.due_s(0.0) is None


def test_a_stalled_interrupt_endpoint_is_told_and_no_longer_listened_to() -> None:
    model = Notifier()
    guest = Guest(model)
    guest.meet()
    model.news = [Stall()]
    assert guest.tell(packet(Kind.START_INTERRUPT, b"\x83"))[1] == (Kind.INTERRUPT_STATUS, 0, b"\4\x83")
    assert guest.end.due_s(0.0) is None
    out = packet(Kind.INTERRUPT, struct.pack("<BBH", 0x03, 0, 2) + b"ab", 5)
    assert guest.tell(out) == [(Kind.INTERRUPT, 5, struct.pack("<BBH", 0x03, 0, 2))]


@pytest.mark.parametrize(
    "nonsense",
    [
        packet(12),
        packet(9999),
        packet(Kind.BULK, b"ab"),
        packet(Kind.SET_CONFIGURATION),
        struct.pack("<IIQ", 0, 1 << 31, 0),
    ],
)
def test_what_is_no_packet_is_an_error(guest: Guest, nonsense: bytes) -> None:
    with pytest.raises(ProtocolError):
        guest.tell(nonsense)


# -- the cable ------------------------------------------------------------


@pytest.fixture
def port(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "port"))
        listener.listen(1)
        yield listener


@pytest.fixture
def cable(port: socket.socket) -> Iterator[Cable]:
    one = Cable(Loopback(Loopback.Settings()), Path(port.getsockname()))
    yield one
    one.close()


class Wire:
    """The guest's end of a plugged cable."""

    def __init__(self, port: socket.socket) -> None:
        self.socket, _ = port.accept()
        self.socket.settimeout(10)
        self.socket.sendall(hello())
        self.receive(12 + 68)
        for size in (132, 160, 10):
            self.receive(16 + size)

    def receive(self, size: int) -> bytes:
        data = self.socket.recv(size, socket.MSG_WAITALL)
        while len(data) < size:
            more = self.socket.recv(size - len(data))
            assert more
            data += more
        return data

    def ask(self, data: bytes, answer_bytes: int) -> bytes:
        self.socket.sendall(data)
        return self.receive(16 + answer_bytes)[16:]


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    return condition()


def test_a_cable_serves_until_it_is_pulled_and_again_after(cable: Cable, port: socket.socket) -> None:
    for _ in range(2):
        cable.plug()
        wire = Wire(port)
        assert wire.ask(control(1, 0xC0, 2, 0, 0, 64), 10)[10:] == b""  # powered up anew
        wire.ask(control(1, 0x40, 1, 0, 0, 4, data=b"kept"), 10)
        assert wire.ask(bulk(2, SOURCE, 1 << 20), 10 + (1 << 20))[-1] == 255
        wire.socket.sendall(bulk(3, IN, 8))
        wire.ask(control(4, 0xC0, 2, 0, 0, 64), 14)  # so 3 was read, and waits
        cable.unplug()
        cable.unplug()
        assert struct.unpack("<IIQ", wire.receive(16)) == (Kind.DEVICE_DISCONNECT, 0, 0)
        assert wire.socket.recv(1) == b"" and not cable.state()["plugged"]
        wire.socket.close()


def test_faults_are_armed_while_it_serves(cable: Cable, port: socket.socket) -> None:
    cable.plug()
    wire = Wire(port)
    cable.inject("usb.nak", endpoint=SOURCE, seconds=0.2)
    began_s = time.monotonic()
    assert len(wire.ask(bulk(1, SOURCE, 8), 18)) == 18
    assert time.monotonic() - began_s >= 0.15
    with pytest.raises(ValueError, match="no fault 'fire'"):
        cable.inject("fire")
    cable.inject("usb.gone")
    assert struct.unpack("<IIQ", wire.receive(16)) == (Kind.DEVICE_DISCONNECT, 0, 0)
    assert eventually(lambda: not cable.plugged)
    wire.socket.close()


def test_a_guest_that_dies_or_talks_nonsense_unplugs_the_device(
    cable: Cable, port: socket.socket, capsys: pytest.CaptureFixture[str]
) -> None:
    cable.plug()
    with pytest.raises(ValueError, match="plugged in already"):
        cable.plug()
    Wire(port).socket.close()
    assert eventually(lambda: not cable.plugged)
    assert "is gone" in capsys.readouterr().err
    cable.plug()
    wire = Wire(port)
    wire.socket.sendall(packet(12))
    assert eventually(lambda: not cable.plugged)
    assert "type 12" in capsys.readouterr().err
    wire.socket.close()


def test_there_must_be_a_port(tmp_path: Path) -> None:
    cable = Cable(Loopback(Loopback.Settings()), tmp_path / "nowhere")
    with pytest.raises(OSError, match="No such file"):
        cable.plug()
    cable.inject("stall", endpoint=IN)
    assert cable.state() == {"counts": {}, "plugged": False}
    cable.close()
