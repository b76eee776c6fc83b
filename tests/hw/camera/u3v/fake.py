"""A small USB3 Vision camera at the level of `UsbDevice`: registers, a description, a stream on a real clock.

Independent of `hw/twin`: what both it and the emulated camera agree on with the driver is the protocol.
"""

from __future__ import annotations

import errno
import os
import struct
import time
from collections import Counter
from types import SimpleNamespace

import numpy as np

from hw.usb.bus import Endpoint, FoundDevice, Interface
from hw.usb.errors import UsbError, UsbReason, usb_error
from tests.hw.usb.fake_queue import FakeLibUsb

SBRM, SIRM, MANIFEST, XML, FEATURES = 0x10000, 0x20000, 0x30000, 0x40000, 0x50000
INFO = bytes([20, 0x24, 1, 0, 0, 1, 0, 0, 0, 1, 0, 4, 1, 2, 0, 5, 6, 3, 7, 0x08])
STRINGS = {1: "Maker", 2: "Fake", 3: "F001", 4: "ABCD00000001", 7: "left one"}
WIDTH, HEIGHT, FORMAT, ACQUIRE, EXPOSURE, RATE, GAMMA, LOCKED, AUTO, SELECTOR, TRIGGER = (
    FEATURES + 16 * k for k in range(11)
)


def _register(name: str, address: int, length: int = 4, kind: str = "IntReg", more: str = "") -> str:
    sign = "<Sign>Unsigned</Sign>" if kind == "IntReg" else ""
    return (
        f'<{kind} Name="{name}"><Address>{address}</Address><Length>{length}</Length><AccessMode>RW</AccessMode>'
        f"<pPort>Device</pPort><Cachable>NoCache</Cachable>{sign}<Endianess>LittleEndian</Endianess>{more}</{kind}>"
    )


def _choice(name: str, register: str, more: str = "", **entries: int) -> str:
    inside = "".join(f'<EnumEntry Name="{k}"><Value>{v}</Value></EnumEntry>' for k, v in entries.items())
    return f'<Enumeration Name="{name}">{more}{inside}<pValue>{register}</pValue></Enumeration>'


def description(stubborn: bool) -> str:
    lock = "<pIsLocked>TLParamsLocked</pIsLocked>"
    access = "<ImposedAccessMode>RO</ImposedAccessMode>" if stubborn else ""
    parts = [
        f'<Integer Name="Width">{lock}<pValue>WidthReg</pValue><Min>8</Min><Max>64</Max><Inc>4</Inc></Integer>',
        f'<Integer Name="Height">{lock}<pValue>HeightReg</pValue><Min>2</Min><Max>48</Max></Integer>',
        _choice("PixelFormat", "FormatReg", lock, Mono8=0x01080001, Mono12p=0x010C0047, Mono12=0x01100005, RGB8=1),
        '<Command Name="AcquisitionStart"><pValue>AcquireReg</pValue><CommandValue>1</CommandValue></Command>',
        '<Command Name="AcquisitionStop"><pValue>AcquireReg</pValue><CommandValue>2</CommandValue></Command>',
        '<Float Name="ExposureTime"><pValue>ExposureReg</pValue><Min>10</Min><Max>100000</Max></Float>',
        '<Float Name="AcquisitionFrameRate"><pValue>RateReg</pValue><Min>1</Min><Max>500</Max></Float>',
        f'<Boolean Name="GammaEnable">{access}<pValue>GammaReg</pValue></Boolean>',
        _choice("GainAuto", "AutoReg", Off=0, Continuous=1),
        _choice("TriggerSelector", "SelectorReg", access, FrameStart=0, FrameBurstStart=1),
        _choice("TriggerMode", "TriggerReg", Off=0, On=1),
        '<Integer Name="TLParamsLocked"><pValue>LockedReg</pValue><Min>0</Min><Max>1</Max></Integer>',
        *(
            _register(f"{name}Reg", address)
            for name, address in (
                ("Width", WIDTH), ("Height", HEIGHT), ("Format", FORMAT), ("Acquire", ACQUIRE), ("Gamma", GAMMA),
                ("Locked", LOCKED), ("Auto", AUTO), ("Selector", SELECTOR), ("Trigger", TRIGGER),
            )
        ),
        _register("ExposureReg", EXPOSURE, 8, "FloatReg"),
        _register("RateReg", RATE, 8, "FloatReg"),
        '<Port Name="Device"/>',
    ]  # fmt: skip
    head = (
        '<?xml version="1.0" encoding="utf-8"?><RegisterDescription ModelName="Fake" VendorName="Maker" '
        'StandardNameSpace="None" SchemaMajorVersion="1" SchemaMinorVersion="1" SchemaSubMinorVersion="0" '
        'MajorVersion="1" MinorVersion="0" SubMinorVersion="0" ProductGuid="11111111-1111-1111-1111-111111111111" '
        'VersionGuid="22222222-2222-2222-2222-222222222222" xmlns="http://www.genicam.org/GenApi/Version_1_1">'
    )
    return head + "".join(parts) + "</RegisterDescription>"


class FakeCamera:
    """What a `UsbDevice` of it would do; `library` is its libusb. `faults` are consumed as they happen."""

    def __init__(self, *, alignment_log2: int = 10, chunk_bytes: int = 0, stubborn: bool = False, speed: int = 8):
        self.memory = bytearray(0x60000)
        self.alignment_log2, self.chunk_bytes, self.speed = alignment_log2, chunk_bytes, speed
        self.library = CameraLibUsb(self)
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []
        self.answers: list[bytes] = []
        self.opens, self.plugged, self.is_open = 0, True, False
        self.xml = description(stubborn).encode()
        self.power_up()

    def put(self, address: int, value: int, size: int = 4) -> None:
        self.memory[address : address + size] = value.to_bytes(size, "little")

    def number(self, address: int, size: int = 4) -> int:
        return int.from_bytes(self.memory[address : address + size], "little")

    def power_up(self) -> None:
        self.memory[:] = bytes(len(self.memory))
        for address, text in ((4, "Maker"), (0x44, "Fake"), (0xC4, "1.0"), (0x144, "F001")):
            self.memory[address : address + len(text)] = text.encode()
        for address, value, size in (
            (0x1CC, 100, 4), (0x1D0, MANIFEST, 8), (0x1D8, SBRM, 8), (0x1FC, 1, 8), (SBRM + 0x14, 256, 4),
            (SBRM + 0x18, 512, 4), (SBRM + 0x20, SIRM, 8), (SBRM + 0x40, self.speed, 4),
            (SIRM, self.alignment_log2 << 24, 4), (SIRM + 0x10, 52, 4), (SIRM + 0x14, 32, 4), (MANIFEST, 1, 8),
            (MANIFEST + 8, 0x01000000, 4), (MANIFEST + 16, XML, 8), (MANIFEST + 24, len(self.xml), 8), (WIDTH, 64, 4),
            (HEIGHT, 48, 4), (FORMAT, 0x01080001, 4), (GAMMA, 1, 4), (AUTO, 1, 4), (TRIGGER, 1, 4),
        ):  # fmt: skip
            self.put(address, value, size)
        self.memory[XML : XML + len(self.xml)] = self.xml
        self.memory[EXPOSURE : EXPOSURE + 8] = struct.pack("<d", 2000.0)
        self.memory[RATE : RATE + 8] = struct.pack("<d", 200.0)
        self.block_id, self.due_s = 0, 0.0
        self.halted = False

    # -- what UsbDevice is ------------------------------------------------------------

    @property
    def found(self) -> FoundDevice:
        ends = (Endpoint(0x01, 2, 1024), Endpoint(0x81, 2, 1024))
        control = Interface(0, 0, (0xEF, 5, 0), ends, INFO)
        stream = Interface(1, 0, (0xEF, 5, 2), (Endpoint(0x82, 2, 1024),))
        return FoundDevice(9, 99, "9-1", 1, 2, 5000.0, "Maker", "Fake", "F001", (control, stream), self)

    def open(self, found, interfaces):
        self.check()
        if "busy" in self.faults:
            raise usb_error(OSError(errno.EBUSY, os.strerror(errno.EBUSY)), "claiming", 9, 99)
        self.opens += 1
        self.is_open = True
        return self

    def check(self) -> None:
        if not self.plugged:
            raise UsbError(UsbReason.UNPLUGGED, "Fake is gone")

    def close(self) -> None:
        assert not self.library.flying or self.library.stuck, "closed with transfers in flight"
        self.is_open = False

    def reset(self) -> None:
        self.counts["reset"] += 1
        self.close()
        self.check()
        if "mute until reset" in self.faults:
            self.faults.remove("mute until reset")
        self.power_up()

    def string(self, index: int, timeout_s: float = 1.0) -> str:
        return STRINGS.get(index, "")

    def set_halt(self, endpoint: int, timeout_s: float = 1.0) -> None:
        self.check()
        self.counts["halt"] += 1

    def clear_halt(self, endpoint: int) -> None:
        self.check()
        self.counts[f"clear {endpoint:02x}"] += 1
        if endpoint == 0x82:
            self.halted = False

    def bulk_in(self, endpoint: int, length: int, timeout_s: float) -> bytes:
        self.check()
        if not self.answers:
            time.sleep(min(timeout_s, 0.005))
            raise UsbError(UsbReason.TIMEOUT, "no answer")
        return self.answers.pop(0)

    def bulk_out(self, endpoint: int, data: bytes, timeout_s: float) -> None:
        self.check()
        magic, flags, command, length, request = struct.unpack_from("<IHHHH", data)
        assert magic == 0x43563355 and flags & 0x4000 and length == len(data) - 12 and len(data) <= 256
        self.counts["request"] += 1
        if self.faults and self.faults[0] in REQUEST_FAULTS and self._fault(self.faults.pop(0), request, flags):
            return
        self.answers.append(self.answer(command, data[12:], request))

    def _fault(self, fault: str, request: int, flags: int) -> bool:
        """Whether that was the whole answer."""
        self.counts[fault] += 1
        head = {"stray": (0, 0x0801, 0, request - 1), "pending": (0, 0x0805, 4, request)}
        if fault in head:
            self.answers.append(struct.pack("<IHHHH", 0x43563355, *head[fault]) + b"\0\0\x32\0" * (fault == "pending"))
        elif fault == "garbage":
            self.answers.append(b"what?")
        elif fault == "busy register":
            self.answers.append(struct.pack("<IHHHH", 0x43563355, 0x8007, 0x0801, 0, request))
        elif fault == "no resend":
            assert flags & 0x8000
            self.answers.append(struct.pack("<IHHHH", 0x43563355, 0xA001, 0x0801, 0, request))
        return fault in ("lost", "no resend", "busy register")

    def answer(self, command: int, body: bytes, request: int) -> bytes:
        address = int.from_bytes(body[:8], "little")
        if address >= len(self.memory):
            return struct.pack("<IHHHH", 0x43563355, 0x8003, command | 1, 0, request)
        if command == 0x0800:
            count = int.from_bytes(body[10:12], "little")
            assert count <= 500
            if SIRM + 8 <= address < SIRM + 16:
                self.put(SIRM + 8, self.payload_bytes, 8)
            data = bytes(self.memory[address : address + count])
            return struct.pack("<IHHHH", 0x43563355, 0, 0x0801, len(data), request) + data
        data = body[8:]
        status = self.written(address, data)
        return struct.pack("<IHHHH", 0x43563355, status, 0x0803, 4, request) + struct.pack("<HH", 0, len(data))

    def written(self, address: int, data: bytes) -> int:
        if SIRM + 0x18 <= address < SIRM + 0x30 and self.number(SIRM + 4) & 1:
            return 0x8004
        if address == SIRM + 4 and data[0] & 1 and (status := self.inconsistent()):
            return status
        self.memory[address : address + len(data)] = data
        if address == 0x1F8:
            self.put(0x1F0, time.monotonic_ns(), 8)
        if address == ACQUIRE and data[0] == 1:
            self.block_id, self.due_s = 0, time.monotonic()
        return 0

    # -- the stream ------------------------------------------------------------

    @property
    def image_bytes(self) -> int:
        return self.number(WIDTH) * self.number(HEIGHT) * (self.number(FORMAT) >> 16 & 0xFF) // 8

    @property
    def payload_bytes(self) -> int:
        return self.image_bytes + self.chunk_bytes

    @property
    def transfers(self) -> list[int]:
        size, count, first, second = (self.number(SIRM + at) for at in (0x1C, 0x20, 0x24, 0x28))
        return [one for one in [size] * count + [first, second] if one]

    def inconsistent(self) -> int:
        align = 1 << self.alignment_log2
        sizes = [*self.transfers, self.number(SIRM + 0x18), self.number(SIRM + 0x2C)]
        if any(size % align for size in sizes):
            return 0xA003
        return 0xA004 if sum(self.transfers) < self.payload_bytes or self.number(SIRM + 0x18) < 52 else 0

    @property
    def streaming(self) -> bool:
        on = self.number(SIRM + 4) & 1 and self.number(ACQUIRE) == 1
        return bool(on) and self.plugged and "mute" not in self.faults and "mute until reset" not in self.faults

    def image(self, block_id: int) -> np.ndarray:
        seed = 0 if "frozen" in self.faults else block_id
        return np.random.default_rng(seed).integers(0, 256, self.image_bytes, np.uint8)

    def frame(self) -> list[tuple[bytes, int]]:
        """(data, status) of each transfer of the next frame."""
        fault = self.faults.pop(0) if self.faults and self.faults[0] in FRAME_FAULTS else ""
        if fault == "lose 3":
            self.block_id += 3
        block = self.block_id
        self.block_id += 1
        chunks = bytes(range(1, self.chunk_bytes + 1))
        payload = self.image(block).tobytes() + chunks
        valid, status = len(payload), 0xA101 if fault == "overrun" else 0
        stamp, kind = time.monotonic_ns(), 0x4001 if chunks else 0x0001
        height, width = self.number(HEIGHT), self.number(WIDTH)
        code = self.number(FORMAT) if fault != "other format" else 0x01100007
        leader = struct.pack(
            "<IHHQHHQIIIIIHH", 0x4C563355, 0, 52, block, 0, kind, stamp, code, width, height, 0, 0, 0, 0
        )
        trailer = struct.pack("<IHHQHHQI", 0x54563355, 0, 32, block + (fault == "torn"), status, 0, valid, height)
        if fault == "cut":
            payload = payload[: len(payload) // 2]
        parts, at = [], 0
        for size in self.transfers:
            parts.append((payload[at : at + size], 0))
            at += size
            if at >= len(payload) and fault == "cut":
                break
        frame = [(leader, 0), *parts, (trailer, 0)]
        codes = {"stall": 4, "babble": 6, "io": 1}
        if fault in codes:
            frame[1] = (b"", codes[fault])
            self.halted = fault == "stall"
        return frame


REQUEST_FAULTS = ("lost", "stray", "pending", "busy register", "no resend", "garbage")
FRAME_FAULTS = ("cut", "torn", "overrun", "other format", "stall", "babble", "io", "lose 3")


class CameraLibUsb(FakeLibUsb):
    """Its transfers end when the camera has something for them, or is unplugged."""

    def __init__(self, camera: FakeCamera) -> None:
        super().__init__()
        self.camera = camera
        self.pending: list[tuple[bytes, int]] = []

    def handle_events(self, timeout_s: float) -> None:
        with self.room:
            self._pump()
        super().handle_events(0.001)
        time.sleep(0.0005)

    def _pump(self) -> None:
        camera = self.camera
        while not camera.plugged and self.flying:
            self._end(self.flying[0], 5, b"")
        if not camera.streaming or camera.halted:
            self.pending = []
            return
        rate_hz = struct.unpack("<d", camera.memory[RATE : RATE + 8])[0]
        now_s = time.monotonic()
        while now_s >= camera.due_s:
            if len(self.flying) < 2 + len(camera.transfers):
                return  # its memory is large: only faults lose frames, not a busy machine
            camera.due_s += 1 / rate_hz
            for data, status in camera.frame():
                if self.flying:
                    self._end(self.flying[0], status, data[: self.flying[0].contents.length])
            if camera.halted:
                return


def installed(monkeypatch, camera: FakeCamera, tmp_path) -> None:
    """Have the driver find and open `camera`, and nothing else."""
    from hw.camera.u3v import camera as driver
    from hw.camera.u3v import link
    from hw.usb import errors, queue

    (tmp_path / "009").mkdir(exist_ok=True)
    (tmp_path / "009" / "099").touch()  # the device's node: it is there
    monkeypatch.setattr(errors, "NODES", tmp_path)

    def pick(wanted, backend=None):
        if not camera.plugged:
            from hw.errors import CameraError, CameraReason

            raise CameraError(CameraReason.NOT_FOUND, "there is no USB3 Vision camera on the bus")
        return camera.found

    monkeypatch.setattr(driver, "pick", pick)
    monkeypatch.setattr(driver, "cache_directory", lambda: tmp_path / "descriptions")
    monkeypatch.setattr(link, "UsbDevice", SimpleNamespace(open=camera.open))
    monkeypatch.setattr(queue, "libusb_of", lambda device: (camera.library, 1))
