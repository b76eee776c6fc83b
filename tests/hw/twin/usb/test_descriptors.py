from __future__ import annotations

from hw.twin.usb import descriptors


def test_a_configuration_counts_what_is_in_it() -> None:
    class_specific = bytes([5, 0x24, 1, 2, 3])
    whole = descriptors.configuration(
        descriptors.association(0, 2, (0xEF, 5, 0)),
        descriptors.interface(0, (0xEF, 5, 0), class_specific, descriptors.endpoint(1), descriptors.endpoint(0x81)),
        descriptors.interface(1, (0xEF, 5, 2), descriptors.endpoint(0x82, packet=1024, burst=15)),
        descriptors.interface(1, (0xEF, 5, 2), alternate=1),
        max_power_ma=896,
        usb=0x0300,
    )
    assert int.from_bytes(whole[2:4], "little") == len(whole)
    assert (whole[4], whole[8]) == (2, 112)  # interfaces; units of 8 mA
    parts = list(descriptors.walk(whole))
    assert b"".join(parts) == whole
    assert [part[4] for part in parts if part[1] == descriptors.INTERFACE] == [2, 1, 0]
    assert descriptors.endpoint_interfaces(whole) == {1: 0, 0x81: 0, 0x82: 1}
    assert descriptors.endpoint_packets(whole) == {1: 512, 0x81: 512, 0x82: 1024}


def test_a_device_of_each_speed() -> None:
    assert descriptors.device(0x1234, 0x5678).hex() == "120100020000004034127856000101020301"
    assert descriptors.device(0x1234, 0x5678, usb=0x0300)[7] == 9  # 2 to the 9th


def test_strings_are_utf_16_and_never_too_long() -> None:
    assert descriptors.string("µ") == b"\4\3\xb5\0"
    assert len(descriptors.string("x" * 999)) == 254
