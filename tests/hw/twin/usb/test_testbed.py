from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator

import pytest

from hw.twin.usb.loopback import Loopback
from hw.twin.usb.testbed import Place, Testbed, _murmur2

PLACE = Place(2, 5, 3)


@pytest.fixture
def testbed() -> Iterator[Testbed]:
    one = Testbed()
    yield one
    one.close()
    one.close()
    assert not one.root.exists()


def test_a_device_is_a_folder_a_file_and_a_link_and_all_go_again(testbed: Testbed) -> None:
    before = {path for path in testbed.root.rglob("*") if "system" not in path.parts}
    testbed.listen(PLACE).close()
    node = testbed.add(PLACE, Loopback(Loopback.Settings()))
    folder = testbed.root / "sys/bus/usb/devices/2-3"
    assert (folder / "busnum").read_text() + (folder / "devnum").read_text() == "2\n5\n"
    assert "DEVNAME=/dev/bus/usb/002/005\n" in (folder / "uevent").read_text()
    assert (folder / "descriptors").read_bytes()[18:20] == b"\x09\x02"
    testbed.remove(PLACE)
    node.close()
    left = {path for path in testbed.root.rglob("*") if "system" not in path.parts} - before
    assert all(path.is_dir() and not list(path.rglob("2-3")) for path in left)


def test_those_who_wait_at_the_file_wake_when_it_is_ready(testbed: Testbed) -> None:
    node = testbed.add(PLACE, Loopback(Loopback.Settings()))
    host = os.open(testbed.root / "dev/bus/usb/002/005", os.O_RDWR)
    try:
        for ready in (False, True, True, False, False, True):
            node.set_ready(ready)
            assert bool(select.select([], [host], [], 0)[1]) == ready
    finally:
        os.close(host)
        node.close()
        node.close()


def test_news_reach_a_listener_whose_name_was_taken_over(testbed: Testbed) -> None:
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as first,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as second,
    ):
        name = testbed.root / "event7"
        for one in (first, second):
            name.unlink(missing_ok=True)
            one.bind(str(name))
            one.settimeout(1)
            testbed.adopt_listeners()
        testbed.add(PLACE, Loopback(Loopback.Settings())).close()
        messages = [one.recv(4096) for one in (first, second)]
    assert messages[0] == messages[1]
    assert messages[0].startswith(b"libudev\0\xfe\xed\xca\xfe")
    at, size = (int.from_bytes(messages[0][k : k + 4], "little") for k in (16, 20))
    body = messages[0][at : at + size].decode()
    assert at + size == len(messages[0]) and "ACTION=add\0" in body and "SUBSYSTEM=usb\0" in body


def test_a_listener_that_died_is_forgotten(testbed: Testbed) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        one.bind(str(testbed.root / "event7"))
        testbed.adopt_listeners()
    testbed.add(PLACE, Loopback(Loopback.Settings())).close()
    assert list((testbed.root / "heard").iterdir()) == []


def test_the_hash_is_that_of_libudevs_filter() -> None:
    texts = (b"", b"usb", b"block", b"usb_device", b"abcde")
    assert [_murmur2(text) for text in texts] == [0, 91735525, 4026736055, 670627084, 1594468574]
