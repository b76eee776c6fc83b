from __future__ import annotations

import errno

import pytest

from hw.twin.usb import descriptors
from hw.twin.usb.device import Gone, Setup, Stall
from hw.twin.usb.loopback import Loopback
from hw.twin.usb.port import Port, Transfer

OUT, IN, SOURCE = 0x01, 0x81, 0x82
OWNER, OTHER = "owner", "other"


@pytest.fixture
def ended() -> list[Transfer]:
    return []


@pytest.fixture
def port(ended: list[Transfer]) -> Port:
    return Port(Loopback(Loopback.Settings(delay_s=1.0)), ended.append)


def submit(port: Port, endpoint: int, length: int = 8, data: bytes = b"", now_s: float = 0.0, token: int = 1) -> int:
    return port.submit(Transfer(OWNER, token, endpoint, len(data) or length, data), now_s)


def control(port: Port, *setup: int, data: bytes = b"") -> int:
    return port.submit(Transfer(OWNER, 1, 0, setup[-1], data, Setup(*setup)), 0.0)


def test_an_answer_comes_when_it_is_due_and_the_port_says_when(port: Port, ended: list[Transfer]) -> None:
    submit(port, OUT, data=b"abc", now_s=5.0)
    assert port.due_s(5.0) is None  # nobody waits
    submit(port, IN, now_s=5.0, token=2)
    assert port.due_s(5.0) == 6.0
    port.pump(5.9)
    assert [one.token for one in ended] == [1]
    port.pump(6.0)
    assert (ended[1].token, ended[1].status, ended[1].actual, bytes(ended[1].answer)) == (2, 0, 3, b"abc")


def test_a_longer_answer_than_its_room_babbles(
    port: Port, ended: list[Transfer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(port.model, "bulk_in", lambda endpoint, length, now_s: bytes(length + 1))
    submit(port, IN, 8)
    assert (ended[0].status, ended[0].actual, len(ended[0].answer)) == (-errno.EOVERFLOW, 8, 8)


@pytest.mark.parametrize(
    ("raised", "status"), [(Stall(), errno.EPIPE), (Gone(), errno.ESHUTDOWN), (ZeroDivisionError("bug"), errno.EPROTO)]
)
@pytest.mark.parametrize("endpoint", [IN, OUT])
def test_what_a_model_raises_ends_the_transfer_and_not_the_bus(
    port: Port,
    ended: list[Transfer],
    monkeypatch: pytest.MonkeyPatch,
    raised: Exception,
    status: int,
    endpoint: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*args: object) -> None:
        raise raised

    for name in ("bulk_in", "bulk_out"):
        monkeypatch.setattr(port.model, name, fail)
    submit(port, endpoint)
    assert [one.status for one in ended] == [-status]
    assert port.gone == isinstance(raised, Gone)
    assert ("bug" in capsys.readouterr().err) == (port.model.counts["faults of the model"] == 1)


def test_all_that_waits_ends_when_the_device_goes(port: Port, ended: list[Transfer]) -> None:
    for token in range(3):
        submit(port, IN, token=token)
    port.unplug()
    port.unplug()
    assert [(one.token, one.status) for one in ended] == [(k, -errno.ESHUTDOWN) for k in range(3)]
    assert submit(port, IN) == errno.ENODEV and port.due_s(0.0) is None


def test_a_cancelled_transfer_ends_at_once_and_only_that(port: Port, ended: list[Transfer]) -> None:
    for token in range(3):
        submit(port, IN, token=token)
    assert port.cancel(OWNER, 1) and not port.cancel(OWNER, 1) and not port.cancel(OTHER, 0)
    assert [(one.token, one.status) for one in ended] == [(1, -errno.ENOENT)]
    submit(port, OUT, data=b"x", token=9)
    port.pump(0.0)
    port.pump(2.0)
    assert [one.token for one in ended[1:]] == [9, 0]


def test_claims(port: Port, ended: list[Transfer]) -> None:
    assert port.claim(OWNER, 0) == port.claim(OWNER, 0) == 0
    assert port.claim(OTHER, 0) == errno.EBUSY and port.claim(OTHER, 7) == errno.ENOENT
    assert port.submit(Transfer(OTHER, 1, IN, 8), 0.0) == errno.EBUSY
    assert port.submit(Transfer(OTHER, 1, 0x8F, 8), 0.0) == errno.ENOENT
    assert port.submit(Transfer(OTHER, 1, SOURCE, 8), 0.0) == 0  # claimed on first use
    assert port.claim(OWNER, 1) == errno.EBUSY
    assert port.release(OTHER, 0) == errno.EINVAL
    submit(port, IN)
    port.leave(OWNER)
    assert port.claim(OTHER, 0) == 0
    port.pump(9.0)
    assert len(ended) == 1  # the leaver's transfer went with it


@pytest.mark.parametrize("recipient", [1, 2])
def test_requests_to_what_another_holds_are_refused(port: Port, recipient: int) -> None:
    port.claim(OTHER, 0)
    index = 0 if recipient == 1 else IN
    assert control(port, 0x20 | recipient, 1, 0, index, 0) == errno.EBUSY
    assert control(port, 0x40 | recipient, 1, 0, index, 0) == 0  # vendor requests are nobody's
    assert control(port, 0x20, 1, 0, 0, 0) == 0


@pytest.mark.parametrize(
    ("setup", "answer"),
    [
        ((0x80, 6, 0x0100, 0, 8), b"\x12\1\0\2\0\0\0\x40"),
        ((0x80, 6, 0x0300, 0, 255), b"\4\3\x09\4"),
        ((0x80, 6, 0x0303, 0x409, 6), b"\x12\3L\0O\0"),
        ((0x80, 8, 0, 0, 1), b"\1"),
        ((0x81, 10, 0, 0, 1), b"\0"),
        ((0x80, 0, 0, 0, 2), b"\0\0"),
        ((0x80, 6, 0x0304, 0x409, 255), None),
        ((0x80, 6, 0x0F00, 0, 255), None),
        ((0x02, 3, 0, 0x8F, 0), None),
        ((0x80, 12, 0, 0, 2), None),
    ],
)
def test_standard_requests(port: Port, ended: list[Transfer], setup: tuple[int, ...], answer: bytes | None) -> None:
    assert control(port, *setup) == 0
    assert ended[0].status == (0 if answer is not None else -errno.EPIPE)
    assert bytes(ended[0].answer) == (answer or b"")
    assert submit(port, OUT, data=b"x") == 0 and ended[-1].status == 0  # endpoint 0 never stays halted


def test_superspeed_devices_have_capabilities_and_take_times(ended: list[Transfer]) -> None:
    port = Port(Loopback(Loopback.Settings(superspeed=True)), ended.append)
    control(port, 0x80, 6, 0x0F00, 0, 5)
    assert bytes(ended[0].answer) == b"\x05\x0f\x16\0\2"
    control(port, 0x80, 6, 0x0F00, 0, 255)
    parts = list(descriptors.walk(bytes(ended[1].answer)))
    assert [part[2] for part in parts[1:]] == [2, 3] and sum(map(len, parts)) == len(ended[1].answer) == 22
    control(port, 0x00, 0x31, 40, 0, 0)
    control(port, 0x00, 0x30, 0, 0, 6, data=bytes(6))
    assert [one.status for one in ended] == [0] * 4


def test_halts_and_what_ends_them(port: Port, ended: list[Transfer]) -> None:
    for end_it in (
        lambda: control(port, 2, 1, 0, OUT, 0),
        port.set_configuration,
        lambda: port.set_interface(0, 0),
        port.reset,
    ):
        control(port, 2, 3, 0, OUT, 0)
        submit(port, OUT, data=b"x")
        assert ended[-1].status == -errno.EPIPE
        end_it()
        submit(port, OUT, data=b"x")
        assert ended[-1].status == 0


def test_faults_of_the_wire_are_as_often_as_ordered(port: Port, ended: list[Transfer]) -> None:
    port.inject("usb.error", 0.0, endpoint=SOURCE, times=2)
    for token in range(3):
        submit(port, SOURCE, token=token)
    assert [one.status for one in ended] == [-errno.EPROTO, -errno.EPROTO, 0]
    port.inject("usb.nak", 10.0, endpoint=SOURCE, seconds=2.0)
    submit(port, SOURCE, now_s=10.0, token=4)
    assert port.due_s(10.0) == 12.0 and len(ended) == 3
    port.pump(12.0)
    assert len(ended) == 4
    with pytest.raises(ValueError, match=r"no fault 'usb.fire'"):
        port.inject("usb.fire", 0.0)
