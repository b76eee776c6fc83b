"""Every parser of input from outside, as a function of bytes.

`parse` returns when it takes the input, and raises an `InstrumentError` when it refuses it; anything else is a finding.
"""

from __future__ import annotations

import atexit
import io
import json
import shutil
import struct
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from multidict import MultiDict
from pydantic import ValidationError

from daemon.api.query import parse_query
from daemon.api.results import TraceQuery
from daemon.cell.experiment import parse_step
from daemon.config import load_settings
from daemon.errors import ApiError, ApiReason
from daemon.mask_edits import MaskChange
from daemon.recipe import Recipe
from hw.camera.u3v.chunks import without_image
from hw.camera.u3v.description import read_description
from hw.camera.u3v.gencp import GenCp
from hw.camera.u3v.registers import StreamNeeds, read_bootstrap, read_needs
from hw.camera.u3v.stream import LEADER, LEADER_MAGIC, TRAILER, TRAILER_MAGIC, ImageFormat, Stream, plan
from hw.errors import RecordingError, RecordingReason, UsbError, UsbReason
from hw.potentiostat.keithley.scpi import Scpi
from hw.potentiostat.methodscript.packets import parse_line
from hw.recording import open_recording
from hw.recording.cell_record import read_sidecar
from hw.usb.bus import Endpoint, Interface
from hw.usb.queue import Done
from hw.usb.usbtmc import HEADER as TMC_HEADER
from hw.usb.usbtmc import UsbTmc
from tests.hw.recording.builders import movie, write_h5, write_tiff

OUT, INWARD = Endpoint(0x01, 2, 1024), Endpoint(0x81, 2, 1024)


@dataclass(frozen=True)
class Target:
    """One parser."""

    name: str
    parse: Callable[[bytes], object]
    seeds: Callable[[], list[bytes]]
    share: float = 1.0
    """Of a campaign's inputs, relative to the others': less for what takes long."""


class Bytes:
    """A device whose answers are cut from the input: each a length (2 bytes) and that many bytes; then time-outs."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)
        self.found = SimpleNamespace(name="a fuzzed device", serial="F1")

    def bulk_in(self, address: int, size: int, timeout_s: float) -> bytes:
        head = self._data.read(2)
        if len(head) < 2:
            raise UsbError(UsbReason.TIMEOUT, "the input has ended")
        return self._data.read(min(int.from_bytes(head, "little"), size))

    def bulk_out(self, address: int, data: bytes, timeout_s: float) -> None:
        pass

    def control(self, kind: int, request: int, value: int, index: int, length: int, timeout_s: float) -> bytes:
        return self.bulk_in(0x81, length, timeout_s)

    def clear_halt(self, address: int) -> None:
        pass


class Memory:
    """A camera's registers that hold the input, everywhere the same 4 kB blocks."""

    def __init__(self, data: bytes) -> None:
        self._data = data.ljust(4096, b"\0")

    def read(self, address: int, count: int) -> bytes:
        if count > 1 << 20:
            raise UsbError(UsbReason.TIMEOUT, "that would take minutes")
        begin = address % len(self._data)
        return (self._data[begin:] + self._data * (1 + count // len(self._data)))[:count]

    def read_u32(self, address: int) -> int:
        return int.from_bytes(self.read(address, 4), "little")

    def read_u64(self, address: int) -> int:
        return int.from_bytes(self.read(address, 8), "little")

    def limit(self, command_bytes: int, ack_bytes: int, response_s: float) -> None:
        pass


def answers(*parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(2, "little") + part for part in parts)


@cache
def scratch() -> Path:
    """A folder in memory where there is one, gone with the process."""
    shm = Path("/dev/shm")
    folder = tempfile.mkdtemp(prefix="fuzz-", dir=shm if shm.is_dir() else None)
    atexit.register(shutil.rmtree, folder)
    return Path(folder)


# --- USB3 Vision --------------------------------------------------------------------------------------------------


def gencp(data: bytes) -> bytes:
    port = GenCp(Bytes(data), OUT, INWARD)  # type: ignore[arg-type]
    return port.read(0x10000, 64)


def gencp_seeds() -> list[bytes]:
    def ack(number: int, body: bytes, command: int = 0x0801, status: int = 0) -> bytes:
        return struct.pack("<IHHHH", 0x43563355, status, command, len(body), number) + body

    return [
        answers(ack(1, bytes(64))),
        answers(ack(1, b"\0\0\x64\0", 0x0805), ack(9, bytes(64)), ack(1, bytes(64))),
        answers(ack(1, b"", status=0x8003)),
    ]


def registers(data: bytes) -> object:
    port = Memory(data)
    bootstrap = read_bootstrap(port)  # type: ignore[arg-type]
    layout = plan(read_needs(port, bootstrap.stream), 4096, 1 << 20, 1024)  # type: ignore[arg-type]
    assert layout.frame_bytes < 1 << 31, "a frame that no memory holds, and no register"
    return bootstrap, layout


def register_seeds() -> list[bytes]:
    memory = bytearray(4096)
    for offset, text in ((0x04, b"Maker"), (0x44, b"Model"), (0xC4, b"1.0"), (0x144, b"S1")):
        memory[offset : offset + len(text)] = text
    struct.pack_into("<QQ", memory, 0x1D0, 0xA00, 0x800)
    struct.pack_into("<II", memory, 0x814, 128, 128)
    struct.pack_into("<Q", memory, 0x820, 0x900)
    struct.pack_into("<IIQII", memory, 0x900, 2 << 24, 0, 4096, 52, 32)
    return [bytes(memory)]


def description(data: bytes) -> str:
    bootstrap = SimpleNamespace(manifest=0, manufacturer="M", model="N", device_version="1", serial="S")
    return read_description(Memory(data), bootstrap, None)  # type: ignore[arg-type]


def description_seeds() -> list[bytes]:
    xml = b'<?xml version="1.0"?><RegisterDescription/>'
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("camera.xml", xml)

    def stored(file: bytes, storage: int) -> bytes:
        return struct.pack("<QHBBIQQ20s", 1, 0, 1, 1, storage << 10, 72, len(file), b"").ljust(72, b"\0") + file

    return [stored(xml, 0), stored(packed.getvalue(), 1)]


IMAGE = ImageFormat(0x01080001, 16, 8, 128)
LAYOUT = plan(StreamNeeds(4, 160, 52, 32), IMAGE.image_bytes, 1 << 20, 64)


def stream(data: bytes) -> object:
    """A frame whose leader, tail and trailer are the input's, with lengths that it also says."""
    one = Stream(Bytes(b""), None, 0, INWARD)  # type: ignore[arg-type]
    one._layout, one._format = LAYOUT, IMAGE
    slot = one._placed(np.zeros(IMAGE.image_bytes, np.uint8), LAYOUT)
    one._slots[0] = slot
    sizes = (LAYOUT.leader_bytes, *LAYOUT.payload, LAYOUT.trailer_bytes)
    lengths = tuple(
        min(byte, size) for byte, size in zip(data[: len(sizes)].ljust(len(sizes), b"\0"), sizes, strict=True)
    )
    body = np.frombuffer(data[len(sizes) :].ljust(512, b"\0"), np.uint8)
    at = 0
    for memory in (slot.leader, slot.trailer, slot.tail):
        memory[:] = np.resize(body[at:], memory.size)
        at += memory.size
    frame = one._judged(Done(0, 0.0, (0,) * len(sizes), lengths))
    if frame is None:
        raise UsbError(UsbReason.PROTOCOL, "the frame is dropped and counted")
    return frame


def stream_seeds() -> list[bytes]:
    leader = LEADER.pack(LEADER_MAGIC, 0, 52, 7, 0, 1, 99, IMAGE.code, 16, 8, 0, 0, 0, 0)
    trailer = TRAILER.pack(TRAILER_MAGIC, 0, 32, 7, 0, 0, 160, 8)
    sizes = (LAYOUT.leader_bytes, *LAYOUT.payload, LAYOUT.trailer_bytes)
    head = bytes(min(size, 255) for size in sizes)
    return [head + leader.ljust(LAYOUT.leader_bytes, b"\0") + trailer.ljust(LAYOUT.trailer_bytes, b"\0") + bytes(32)]


def chunks(data: bytes) -> bytes:
    return without_image(data, 128)


def chunk_seeds() -> list[bytes]:
    def footer(number: int, size: int) -> bytes:
        return struct.pack("<II", number, size)

    return [bytes(4) + footer(1, 132) + bytes(8) + footer(2, 8), footer(1, 128)]


# --- potentiostats ------------------------------------------------------------------------------------------------


def methodscript_seeds() -> list[bytes]:
    return [
        b"Pda8000800u;ba8048D5Fp,10,288", b"Pab7F85F3Fu,14;ba       nan,40", b"e", b"M0007", b"*", b"L", b"",
        b"!4015: Line 3, Col 12", b"Thello", b"+", b"Peb8000000 ;ja9000000m,11,20",
    ]  # fmt: skip


def tmc(data: bytes) -> bytes:
    interface = Interface(0, 0, (0xFE, 3, 1), (OUT, INWARD))
    return UsbTmc(Bytes(data), interface).query(b"*IDN?", 0.001)  # type: ignore[arg-type]


def tmc_seeds() -> list[bytes]:
    def part(text: bytes, tag: int, last: bool = True) -> bytes:
        return TMC_HEADER.pack(2, tag, 0xFF ^ tag, len(text), int(last), 0) + text + bytes(-len(text) % 4)

    return [
        answers(part(b"KEITHLEY,MODEL 2450,1,1.7\n", 2)),
        answers(part(b"1.0,", 2, last=False), part(b"2.0\n", 3)),
    ]


class _Told(Scpi):
    """Talks to the input instead of to a unit."""

    def __init__(self, data: bytes) -> None:
        self._data, self._name = data, "a fuzzed unit"

    def ask(self, query: str) -> str:
        with suppress(UnicodeDecodeError):
            return self._data.decode("ascii").strip()
        raise UsbError(UsbReason.PROTOCOL, "garbage")


def scpi(data: bytes) -> object:
    return _Told(data).numbers("READ?")


# --- files --------------------------------------------------------------------------------------------------------


def as_file(name: str, data: bytes) -> Path:
    path = scratch() / name
    path.write_bytes(data)
    return path


def recording(name: str, **given: Any) -> Callable[[bytes], object]:
    def parse(data: bytes) -> object:
        with open_recording(as_file(name, data), given) as found:
            return found.read(0, min(found.frames, 4)).sum(), found.t_s.sum()

    return parse


def hdf5_seeds() -> list[bytes]:
    path = scratch() / "seed.h5"
    attrs = {"pixel_size_nm": 96.0, "bit_depth": 12, "electrode": "anode"}
    small = movie(4, height=16, width=24)
    cases: list[dict[str, Any]] = [{}, {"chunks": (1, 8, 8)}, {"compression": "gzip"}]
    return [write_h5(path, small, options=options, attrs=dict(attrs)).read_bytes() for options in cases]


def tiff_seeds() -> list[bytes]:
    path = scratch() / "seed.tif"
    small = movie(4, "u2", 16, 24)
    cases: list[dict[str, Any]] = [
        {}, {"ome": True, "metadata": {"axes": "TYX"}}, {"imagej": True, "metadata": {"axes": "TYX"}},
        {"bigtiff": True}, {"compression": "zlib"},
    ]  # fmt: skip
    return [write_tiff(path, small, **options).read_bytes() for options in cases]


def csv(data: bytes) -> object:
    faults: list[Any] = []
    record = read_sidecar(as_file("r.csv", data), faults, [])
    if record is None:
        assert faults, "neither a record nor a reason"
        raise RecordingError(RecordingReason.BAD_DATASET, faults[0].detail)
    return record


def csv_seeds() -> list[bytes]:
    return [
        b"Test Time / s,Voltage / V,Current / A\n0,3.5,0.001\n1,3.6,0.001\n2,3.7,0.001\n",
        b"Voltage / V,Test Time / s,Current / A,Step\n3.5,0,1e-3,a\n,1,,\n",
    ]


def settings(data: bytes) -> object:
    return load_settings(as_file("p.toml", data), environ={})


def settings_seeds() -> list[bytes]:
    return [
        Path("packaging/photometryd.toml").read_bytes(),
        b'[camera]\ndriver = "twin"\n[camera.options]\nframe_rate_hz = 20\n[cell]\ncapacity_mah = 0.5\n[cell.limits]\n'
        b"min_voltage_v = 2.5\nmax_voltage_v = 4.4\nmax_current_ma = 10\n[api]\nport = 0\n",
        b'autostart = { name = "x", reference_frames = 9, experiment = { steps = ["Rest for 1 hour"], cycles = 2 } }\n',
    ]


# --- what the API is asked ----------------------------------------------------------------------------------------


def step(data: bytes) -> object:
    return parse_step(data.decode("utf-8", "replace"))


def step_seeds() -> list[bytes]:
    return [
        b"Charge at 1C until 4.2 V", b"Discharge at C/20 for 3 hours", b"Rest for 10 minutes",
        b"Hold at 4.2 V until C/50", b"Charge at 0.5 mA for 20 s or until 4.1 V", b"Discharge at 2C until 2.5 V",
    ]  # fmt: skip


def body(model: Any) -> Callable[[bytes], object]:
    def parse(data: bytes) -> object:
        try:
            return model.model_validate_json(data)
        except ValidationError as error:
            raise ApiError(ApiReason.BAD_REQUEST, str(error)[:200]) from None

    return parse


def recipe_seeds() -> list[bytes]:
    return [
        json.dumps(
            {"name": "a", "experiment": {"steps": ["Rest for 1 hour"], "cycles": 3}, "baseline_s": 2.0}
        ).encode(),
        json.dumps({"masks": {"min_area_px": 10, "polarity": "dark"}, "reference_frames": 5}).encode(),
    ]


def edit_seeds() -> list[bytes]:
    outline = [[1.0, 1.0], [1.0, 9.0], [9.0, 9.0]]
    edits = [{"action": "remove", "particle_id": 1}, {"action": "add", "outline_px": outline}]
    return [json.dumps({"edits": edits, "version": 1}).encode()]


def query(data: bytes) -> object:
    pairs = [part.partition("=")[::2] for part in data.decode("utf-8", "replace").split("&")]
    return parse_query(TraceQuery, MultiDict(pairs))


def query_seeds() -> list[bytes]:
    return [b"from=0&to=60&points=100", b"columns=contrast,soc&from=1.5"]


TARGETS = (
    Target("u3v.gencp", gencp, gencp_seeds),
    Target("u3v.registers", registers, register_seeds),
    Target("u3v.description", description, description_seeds),
    Target("u3v.stream", stream, stream_seeds),
    Target("u3v.chunks", chunks, chunk_seeds),
    Target("methodscript.line", parse_line, methodscript_seeds, 2.0),
    Target("usbtmc", tmc, tmc_seeds),
    Target("scpi.numbers", scpi, lambda: [b"1.0,2.0,9.9E37", b"+1.5E-3", b"0"]),
    Target("recording.hdf5", recording("r.h5"), hdf5_seeds, 0.02),
    Target("recording.tiff", recording("r.tif", frame_interval_s=0.01), tiff_seeds, 0.1),
    Target("recording.csv", csv, csv_seeds, 0.2),
    Target("settings", settings, settings_seeds, 0.1),
    Target("experiment", step, step_seeds, 2.0),
    Target("recipe", body(Recipe), recipe_seeds),
    Target("mask edits", body(MaskChange), edit_seeds),
    Target("query", query, query_seeds),
)
