"""The emulated firmware: the line protocol, its faults, its terminal and its USB models."""

from __future__ import annotations

import os
import time

import pytest

from hw.twin.methodscript.cell import DeviceOptions
from hw.twin.methodscript.device import FOUND_SCRIPT, KINDS, MethodScriptDevice
from hw.twin.methodscript.pty import PtyDevice
from hw.twin.methodscript.usb import STATUS, MethodScriptCdc, MethodScriptFtdi
from hw.twin.usb.device import Gone, Setup, Stall
from hw.twin.world import WorldReader

SMALL = {"particles": 4, "height_px": 120, "width_px": 160}
LOOP = "var e\nmeas_loop_ocp e 100m 100\npck_start\npck_add e\npck_end\nendloop\n"


@pytest.fixture(scope="module")
def shared():
    device = MethodScriptDevice(DeviceOptions(**SMALL))
    yield device
    device.close()


@pytest.fixture
def device(shared):
    shared.reset()
    shared.inject("none")
    return shared


def live(device, seconds):
    """Let the device live on; its clock may run ahead of this machine's."""
    device.advance(device.cell.host_s(device.cell.t_s) + seconds)


def say(device, text, after_s=0.0):
    device.feed(text.encode())
    live(device, after_s)
    return device.take(1 << 20, time.monotonic()).decode("latin-1")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("t\n", "tes4_hr1307#Jul 21 2025 15:00:38\nR*\n"),
        ("i\n", "iES4HR0001\n"),
        ("v\n", "v0105\n"),
        ("\n", "\n"),
        ("Z\n", "Z!0006\n"),
        ("q\n", "q!0003\n"),
        ("dlfw\n", "d!0003\n"),
        ("r\n", "r!000C\n"),
        ("G01\n", "G00\n"),
        ("e\ncell_off\n\n", "e\n\n"),
        ("e\nfrob\n\n", "e!4001: Line 1, Col 1\n"),
        ('l\nsend_string "x"\n\nr\n', "l\nr\nTx\n\n"),
    ],
)
def test_answers(device, text, answer):
    assert say(device, text) == answer


def test_capabilities_tell_models_apart(device):
    assert int(say(device, "CM\n")[1:], 16) >> 67 & 1
    pico = MethodScriptDevice(DeviceOptions(**SMALL, model="espico"))
    assert not int(say(pico, "CM\n")[1:], 16) >> 67 & 1
    assert "!0021" in say(pico, "e\nset_pgstat_mode 6\n\n")
    pico.close()
    assert set(KINDS) == {"es4_hr", "mes4hr", "es4_lr", "nexus1", "espico", "senswb", "espbl"}


def test_memory_for_scripts_is_bounded(device):
    assert say(device, "e\n" + "wait 1\n" * 4000 + "\n") == "e!4005: Line 1, Col 1\n"


def test_a_running_script_takes_its_own_commands_only(device):
    assert say(device, f"e\n{LOOP}\n", 0.25).startswith("e\nM000B\nPab")
    assert say(device, "t\n") == "t!0006\n" and device.running
    assert say(device, "Z\n", 0.5).startswith("Z\n") and not device.running


def test_halting_and_going_on(device):
    say(device, f"e\n{LOOP}\n", 0.25)
    assert say(device, "h\n", 1.0).count("P") <= 1
    assert say(device, "H\n", 1.0).count("P") > 5


def test_a_full_output_holds_the_script_up_with_the_cell_as_it_is(device):
    device.inject("back_pressure", seconds=3600.0, room=100)
    say(device, f"e\n{FOUND_SCRIPT}\n", 5.0)
    assert device.cell.on and device.counts["held up"] > 0 and len(device._output) <= 100 + 2
    device.inject("none")
    device.inject("none")


def test_faults(device):
    with pytest.raises(ValueError, match="no fault 'frob'"):
        device.inject("frob")
    device.inject("dirty")
    live(device, 1.0)
    assert device.cell.on and device.running
    device.inject("runtime_error", code="0080")
    live(device, 1.0)
    assert b"!0080: Line" in device.take(1 << 20, time.monotonic())
    assert device.cell.on and not device.running
    with pytest.raises(Gone):
        device.inject("unplug")
    assert not device.cell.on


def test_a_terminal_lives_by_itself_and_comes_back(tmp_path):
    world = tmp_path / "world"
    with PtyDevice(tmp_path / "tty", DeviceOptions(**SMALL, world=str(world))) as pty:
        reader = WorldReader(world)
        before_s = reader.read().t_s
        file = os.open(pty.path, os.O_RDWR | os.O_NOCTTY)
        os.write(file, b"i\n")
        assert os.read(file, 100) == b"iES4HR0001\n"
        time.sleep(0.1)
        assert reader.read().t_s > before_s
        pty.inject("unplug")
        assert not pty.path.exists()
        with pytest.raises(OSError):
            os.write(file, b"i\n")
        os.close(file)
        pty.plug()
        assert pty.path.exists() and not pty.state()["running"]
        reader.close()
    assert not world.exists() and not pty.path.exists()


def setup(request_type, request, value=0, index=0, length=0):
    return Setup(request_type, request, value, index, length)


def test_cdc():
    one = MethodScriptCdc(DeviceOptions(**SMALL))
    one.control(setup(0x21, 0x20), bytes.fromhex("00100e00000008"))
    one.control(setup(0x21, 0x22, 3), b"")
    assert (one.state()["baud"], one.state()["lines"]) == (921600, 3)
    assert one.control(setup(0xA1, 0x21), b"") == bytes.fromhex("00100e00000008")
    with pytest.raises(Stall):
        one.control(setup(0xA1, 0x99), b"")
    assert one.bulk_in(0x81, 512, time.monotonic()) is None
    one.bulk_out(0x01, b"i\n")
    assert one.bulk_in(0x81, 512, time.monotonic()) == b"iES4HR0001\n"
    one.inject("unplug")
    with pytest.raises(Gone):
        one.bulk_in(0x81, 512, time.monotonic())
    one.reset()
    assert one.bulk_in(0x82, 16, time.monotonic()) is None
    one.close()


def test_ftdi_puts_its_status_before_every_packet():
    one = MethodScriptFtdi(DeviceOptions(**SMALL))
    now_s = time.monotonic()
    assert one.bulk_in(0x81, 4096, now_s) == STATUS
    assert one.bulk_in(0x81, 4096, now_s) is None
    one.bulk_out(0x02, b"t\ni\nt\ni\n")
    data = one.bulk_in(0x81, 4096, time.monotonic())
    packets = [data[at : at + 64] for at in range(0, len(data), 64)]
    assert len(packets) == 2 and len(packets[0]) == 64 and all(packet[:2] == STATUS for packet in packets)
    assert b"".join(packet[2:] for packet in packets).count(b"iES4HR0001\n") == 2
    with pytest.raises(Stall):
        one.control(setup(0xC0, 5), b"")
    one.close()
