from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ElementTree

import pytest

from hw.twin.u3v.registers import REGISTERS, SIZES, Memory, Refused, description


def memory(written: list[str] | None = None) -> Memory:
    return Memory(b"<file/>", False, lambda: None, (written if written is not None else []).append)


def test_no_two_registers_share_a_byte_and_all_lie_in_the_memory() -> None:
    places = sorted((one.address, one.address + one.length) for one in REGISTERS.values())
    assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(places))
    for begin, end in places:
        assert any(base <= begin and end <= base + size for base, size in SIZES.items()), hex(begin)


def test_numbers_have_their_length_and_order() -> None:
    one = memory()
    one["AnalogControl"], one["FrameRate"], one["Timestamp"] = 0x01020304, 0x01020304, 1 << 60
    assert one.read(REGISTERS["AnalogControl"].address, 4) == b"\1\2\3\4"
    assert one.read(REGISTERS["FrameRate"].address, 4) == b"\4\3\2\1"
    assert one["Timestamp"] == 1 << 60 and one.bits("AnalogControl", 8, 8) == 3


def test_a_write_that_is_refused_changes_nothing() -> None:
    def refuse(name: str) -> None:
        raise Refused(0x8002)

    one = Memory(b"<file/>", False, lambda: None, refuse)
    one["Width"] = 64
    with pytest.raises(Refused):
        one.write(REGISTERS["Width"].address, b"\1\0\0\0")
    assert one["Width"] == 64


def test_a_write_tells_of_each_register_it_covers() -> None:
    written: list[str] = []
    one = memory(written)
    one.write(REGISTERS["Width"].address, bytes(8))
    assert written == ["Width", "Height"]
    with pytest.raises(Refused) as caught:
        one.write(REGISTERS["SensorHeight"].address, bytes(8))  # half of it may not be written
    assert caught.value.status == 0x8004


def test_the_description_names_no_address_that_is_not_there() -> None:
    text = description('5" & <more>', "model").decode()
    root = ElementTree.fromstring(text)
    assert root.get("VendorName") == '5" & <more>'
    space = "{http://www.genicam.org/GenApi/Version_1_1}"
    names = [node.get("Name") for node in root.iter() if node.get("Name") and node.tag != f"{space}EnumEntry"]
    used = [node.text for node in root.iter() if node.tag.removeprefix(space).startswith("p") and node.text]
    assert not re.search(r"\{\w+\}", text)
    assert set(used) <= set(names) and len(set(names)) > 100
