"""The emulated camera: what its registers mean, on the endpoints of a USB3 Vision device."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

from pydantic import Field

from hw.twin.settings import NotNegative, Options, Positive
from hw.twin.u3v import descriptors
from hw.twin.u3v.control import Control
from hw.twin.u3v.frames import CODES, FORMATS, Live, Source, View, loop, pattern, warm_up
from hw.twin.u3v.registers import (
    ACCESS_DENIED,
    BAD_PARAMETER,
    CHUNKS,
    LINES,
    MANIFEST,
    SBRM,
    SIRM,
    SIZES,
    SOFTWARE_VERSION,
    STRINGS,
    TRANSFER_SIZES,
    TRIGGERS,
    USER_NAME,
    Memory,
    Refused,
    description,
)
from hw.twin.u3v.stream import CHUNK_IDS, FAULTS, Stream, chunk_bytes
from hw.twin.u3v.timing import Exposures
from hw.twin.usb.device import UsbModel

TICK_NS = 100
CHUNK_NAMES = ("Image", "FrameID", "Timestamp", "ExposureTime", "Gain", "LineStatusAll")
GEOMETRY = ("Width", "Height", "OffsetX", "OffsetY", "BinningHorizontal", "BinningVertical", "PixelFormat")
LOCKED_WHILE_ACQUIRING = (
    *GEOMETRY,
    "ChunkModeActive",
    *(f"ChunkEnable{k or ''}" for k in range(CHUNKS)),
    "UserSetLoad",
)
SUPERSPEED_B_PER_S, HIGH_SPEED_B_PER_S = 400_000_000, 40_000_000
"""What is left of 5 Gbit/s and 480 Mbit/s on good hosts."""
TEMPERATURE_C = 41.5
TIMED = 1
CONTROL_FAULTS = ("pending_ack", "stray_ack", "slow_control", "no_ack")


class U3vCamera(UsbModel):
    """A camera on a SuperSpeed port, or on one of USB 2 with `usb2`."""

    class Settings(Options):
        """Options of `plug`."""

        serial: str = "EMU0001"
        vendor: str = "photometryd"
        model: str = "Emulated U3V"
        source: Literal["pattern", "loop", "twin"] = "pattern"
        """`pattern`: a moving ramp whose every value is known. `loop`: the scene of the camera driver `loop`.
        `twin`: the simulated microscope on the simulated electrode, drawn frame by frame.
        """
        optics: dict[str, Any] = Field(default={})
        """Options of the camera driver `loop` or `twin` (`world`, `particles`, `height_px`, `pixel_format`, ...)."""
        height_px: Annotated[int, Field(ge=16, le=4096, multiple_of=2)] = 480
        """Of the pattern; other sources have their own."""
        width_px: Annotated[int, Field(ge=16, le=4096, multiple_of=2)] = 640
        pixel_format: Literal["Mono8", "Mono10p", "Mono12", "Mono12p", "Mono16"] = "Mono8"
        """At power-on, as are exposure and rate."""
        exposure_us: Positive = 2000.0
        frame_rate_hz: Positive = 100.0
        max_frame_rate_hz: Positive = 200.0
        """Of the whole sensor; fewer lines are read out faster."""
        automatic: bool = False
        """Exposure and gain are automatic at power-on, as many cameras' are: both are locked until that is off."""
        zip: bool = False
        """The GenICam file is stored zipped."""
        alignment_bytes: Literal[1, 4, 16, 1024] = 1024
        max_transfer_bytes: Annotated[int, Field(ge=64, le=65536, multiple_of=4)] = 1024
        """Longest command and longest acknowledge."""
        first_block_id: Annotated[int, Field(ge=0)] = 0
        buffer_frames: Annotated[int, Field(ge=1, le=1000)] = 4
        """Frames that the camera keeps for a host that does not fetch them; beyond it the oldest are lost."""
        clock_ppm: float = 0.0
        """Error of the camera's clock; the source `twin` has the world's clock."""
        usb2: bool = False
        bandwidth_mb_per_s: NotNegative = 0.0
        """Of the wire; 0: as fast as it is copied, with `usb2` 40."""

    def __init__(self, settings: Settings) -> None:
        """Draws the loop, or the sample: seconds."""
        super().__init__()
        self._settings = settings
        self.speed_mbps = 480 if settings.usb2 else 5000
        self._link_b_per_s = HIGH_SPEED_B_PER_S if settings.usb2 else SUPERSPEED_B_PER_S
        self._source = self._make_source()
        warm_up()
        self._file = description(settings.vendor, settings.model)
        self._stream: Stream | None = None
        self._commands = {
            "SiControl": self._enable_stream,
            "AcquisitionStart": self._start,
            "AcquisitionStop": self._stop,
            "TimestampLatch": self._latch,
            "TriggerSoftware": self._trigger_by_software,
            "TriggerSoftware1": lambda on: None,
            "UserSetLoad": self._load_defaults,
        }
        self.reset()

    def _make_source(self) -> Source:
        settings = self._settings
        if settings.source == "twin":
            return Live(settings.optics)
        if settings.source == "loop":
            return loop(settings.optics, settings.clock_ppm)
        return pattern(settings.height_px, settings.width_px, settings.clock_ppm)

    # -- USB ------------------------------------------------------------

    def device_descriptor(self) -> bytes:
        return descriptors.device(self.speed_mbps)

    def configuration(self) -> bytes:
        return descriptors.configuration(self.speed_mbps)

    def strings(self) -> dict[int, str]:
        settings = self._settings
        return descriptors.strings(settings.vendor, settings.model, settings.serial)

    def bulk_out(self, endpoint: int, data: bytes) -> None:
        self.counts["commands"] += 1
        self._control.command(data)

    def bulk_in(self, endpoint: int, length: int, now_s: float) -> bytes | memoryview | None:
        if endpoint == descriptors.CONTROL_IN:
            return self._control.answer(length, now_s)
        return self._streaming.transfer(now_s, self._view, self._chunk_ids, self._view.gain_db)

    def next_s(self, now_s: float) -> float | None:
        times = (self._control.due_s(), self._streaming.due_s(now_s))
        return min((one for one in times if one is not None), default=None)

    def halted(self, endpoint: int) -> None:
        self.counts["halts"] += 1
        if endpoint == descriptors.STREAM_IN:
            self._streaming.set_halted(True)

    def halt_cleared(self, endpoint: int) -> None:
        self.counts["halts cleared"] += 1
        if endpoint == descriptors.STREAM_IN:
            self._streaming.set_halted(False)
        else:
            self._control.clear()

    # -- power-on ------------------------------------------------------------

    def reset(self) -> None:
        settings = self._settings
        self._memory = Memory(self._file, settings.zip, self._refresh, self._written)
        self._exposures = Exposures(settings.buffer_frames, settings.first_block_id)
        if self._stream is not None:
            self._stream.close()
        bandwidth = settings.bandwidth_mb_per_s * 1e6 or (HIGH_SPEED_B_PER_S if settings.usb2 else 0.0)
        self._stream = self._streaming = Stream(self._memory, self._source, self._exposures, bandwidth, self.counts)
        self._control = Control(self._memory, settings.max_transfer_bytes, settings.max_transfer_bytes)
        self._acquiring = False
        self._lines = 0
        self._set_bootstrap()
        self._set_features()

    def _set_bootstrap(self) -> None:
        settings, memory = self._settings, self._memory
        texts = {"vendor": settings.vendor, "model": settings.model, "serial": settings.serial}
        texts |= {"family": "", "version": "1.0.0", "info": "emulated, no light falls on it"}
        for name, text in texts.items():
            memory.set_text(STRINGS[name], text)
        memory.set_text(USER_NAME, "")
        memory.set_text(SOFTWARE_VERSION, "")
        numbers = {
            "GenCpVersion": 0x0001_0003,
            "Capability": 1,  # a user's name
            "ResponseTime": 300,
            "ManifestAddress": MANIFEST,
            "SbrmAddress": SBRM,
            "TimestampIncrement": 1,
            "AccessPrivilege": 1,
            "U3vVersion": 0x0001_0001,
            "U3vCapability": 1,  # it streams
            "MaxCommand": settings.max_transfer_bytes,
            "MaxAck": settings.max_transfer_bytes,
            "StreamChannels": 1,
            "SirmAddress": SIRM,
            "SirmLength": SIZES[SIRM],
            "CurrentSpeed": 4 if settings.usb2 else 8,
            "SiInfo": (settings.alignment_bytes.bit_length() - 1) << 24,
            "LinkSpeed": self._link_b_per_s,
            "SensorWidth": self._source.width_px,
            "SensorHeight": self._source.height_px,
            "Tick": TICK_NS,
            "LineTime": round(1e9 / settings.max_frame_rate_hz / self._source.height_px),
            "Temperature": round(TEMPERATURE_C * 16),
        }
        for name, value in numbers.items():
            memory[name] = value

    def _set_features(self) -> None:
        """What the user set Default holds."""
        settings, memory = self._settings, self._memory
        automatic = 2 if settings.automatic else 0
        numbers = {
            "Width": self._source.width_px,
            "Height": self._source.height_px,
            "OffsetX": 0,
            "OffsetY": 0,
            "BinningHorizontal": 1,
            "BinningVertical": 1,
            "PixelFormat": CODES[settings.pixel_format],
            "AcquisitionFrameCount": 1,
            "AcquisitionMode": 0,
            "FrameRateEnable": 1,
            "FrameRate": round(settings.frame_rate_hz * 1e3),
            "ExposureTicks": round(settings.exposure_us * 1e3 / TICK_NS),
            "ExposureControl": TIMED << 28 | automatic,
            "AnalogControl": (1 if settings.automatic else 0) << 31,
            "LinkThroughputLimit": self._link_b_per_s,
            "LinkThroughputLimitMode": 1,
            "ChunkModeActive": 0,
        }
        numbers |= {f"TriggerControl{k or ''}": 0 for k in range(TRIGGERS)}
        numbers |= {f"TriggerDelay{k or ''}": 0 for k in range(TRIGGERS)}
        numbers |= {f"LineControl{k or ''}": int(k == 1) for k in range(LINES)}
        numbers |= {f"ChunkEnable{k or ''}": int(k == 0) for k in range(CHUNKS)}
        for name, value in numbers.items():
            memory[name] = value
        self._apply()

    # -- registers ------------------------------------------------------------

    def _refresh(self) -> None:
        """Registers that change by themselves, before the host reads."""
        self._memory["LineStatusAll"] = self._lines
        if not self._exposures.running and self._acquiring:
            self._acquiring = False

    def _apply(self) -> None:
        """What the registers say now: geometry, sizes, times."""
        memory = self._memory
        black = memory.bits("AnalogControl", 12, 8)
        self._view = View(
            memory["Width"],
            memory["Height"],
            memory["OffsetX"],
            memory["OffsetY"],
            memory["BinningHorizontal"],
            memory["BinningVertical"],
            FORMATS[memory["PixelFormat"]],
            memory.bits("AnalogControl", 0, 12) / 10,
            black - 256 if black & 0x80 else black,
        )
        names = [name for k, name in enumerate(CHUNK_NAMES) if k and memory[f"ChunkEnable{k}"]]
        chunks = memory["ChunkModeActive"] == 1
        self._chunk_ids = {name: CHUNK_IDS[name] for name in ["Image", *names]} if chunks else {}
        memory["ChunkBytes"] = chunk_bytes(names) if chunks else 0
        self._required = self._streaming.required(self._view, memory["ChunkBytes"])
        for name, value in self._required.items():
            memory[name] = value
        exposures = self._exposures
        exposures.exposure_s = memory["ExposureTicks"] * TICK_NS * 1e-9
        lines = self._view.height_px * self._view.binning_y
        periods = [lines * memory["LineTime"] * 1e-9, exposures.exposure_s]
        if memory["FrameRateEnable"]:
            periods.append(1e3 / memory["FrameRate"])
        if memory["LinkThroughputLimitMode"]:
            periods.append(self._required["RequiredPayload"] / memory["LinkThroughputLimit"])
        exposures.period_s = max(periods)
        exposures.triggered = bool(memory.bits("TriggerControl", 31, 1))

    def _written(self, name: str) -> None:
        """The host wrote a register. Raises `Refused`."""
        self._refresh()
        if name in LOCKED_WHILE_ACQUIRING and self._acquiring:
            raise Refused(ACCESS_DENIED)
        if name in TRANSFER_SIZES and self._streaming.enabled:
            raise Refused(ACCESS_DENIED)
        if name in self._commands:
            self._commands[name](self._memory[name] & 1 == 1)
            if name != "SiControl":
                self._memory[name] = 0  # done
        elif name not in TRANSFER_SIZES:
            if name in ("BinningHorizontal", "BinningVertical"):
                self._fit(name)
            if not self._is_sound():
                raise Refused(BAD_PARAMETER)
            self._apply()

    def _fit(self, name: str) -> None:
        """Another binning: the whole sensor again in this direction."""
        memory = self._memory
        if memory[name] not in (1, 2):
            raise Refused(BAD_PARAMETER)
        size, offset = ("Width", "OffsetX") if name == "BinningHorizontal" else ("Height", "OffsetY")
        memory[size], memory[offset] = memory[f"Sensor{size}"] // memory[name] // 2 * 2, 0

    def _is_sound(self) -> bool:
        memory = self._memory
        fits = all(
            memory[size] >= 16
            and memory[size] % 2 == memory[offset] % 2 == 0
            and memory[size] + memory[offset] <= memory[f"Sensor{size}"] // memory[binning]
            for size, offset, binning in (
                ("Width", "OffsetX", "BinningHorizontal"),
                ("Height", "OffsetY", "BinningVertical"),
            )
        )
        ranges = {
            "FrameRate": (100, 10_000_000),
            "ExposureTicks": (100, 100_000_000),
            "LinkThroughputLimit": (1_000_000, self._link_b_per_s),
            "AcquisitionMode": (0, 2),
            "AcquisitionFrameCount": (1, 65535),
            "TriggerSelector": (0, TRIGGERS - 1),
            "LineSelector": (0, LINES - 1),
            "ChunkSelector": (0, CHUNKS - 1),
        }
        within = all(low <= memory[name] <= high for name, (low, high) in ranges.items())
        return fits and within and memory["PixelFormat"] in FORMATS and memory.bits("AnalogControl", 0, 12) <= 240

    # -- commands ------------------------------------------------------------

    def _enable_stream(self, on: bool) -> None:
        if not on:
            self._streaming.disable()
        elif not self._streaming.enabled:
            self._streaming.enable(self._required, self._settings.alignment_bytes)
            self._exposures.forget(time.monotonic())

    def _start(self, on: bool) -> None:
        memory = self._memory
        if on and not memory.bits("TriggerControl1", 31, 1):  # else it waits for a burst's trigger that never comes
            frames = {0: None, 1: 1, 2: memory["AcquisitionFrameCount"]}[memory["AcquisitionMode"]]
            self._exposures.start(time.monotonic(), frames)
            self._acquiring = True
            self.counts["starts"] += 1

    def _stop(self, on: bool) -> None:
        if on:
            self._exposures.stop()
            self._acquiring = False

    def _latch(self, on: bool) -> None:
        if on:
            self._memory["Timestamp"] = max(int(self._source.clock_s(time.monotonic()) * 1e9), 0)

    def _trigger_by_software(self, on: bool) -> None:
        if on and self._memory.bits("TriggerControl", 0, 4) == 0:
            self._trigger()

    def _load_defaults(self, on: bool) -> None:
        if on:
            self._set_features()

    def _trigger(self) -> None:
        self.counts["triggers"] += 1
        self._exposures.trigger(time.monotonic(), self._memory["TriggerDelay"] * TICK_NS * 1e-9)

    def _set_line(self, number: int, level: bool) -> None:
        """An input line changes; a frame begins when that is what triggers it."""
        before = self._lines >> number & 1
        self._lines = self._lines & ~(1 << number) | level << number
        self._exposures.lines = self._lines
        source, falling = self._memory.bits("TriggerControl", 0, 4), self._memory.bits("TriggerControl", 4, 2)
        if before != level and level != bool(falling) and source == {0: 1, 2: 2}.get(number):
            self._trigger()

    # -- faults ------------------------------------------------------------

    def inject(self, fault: str, **parameters: Any) -> None:
        """As `docs/emulated-devices.md` has them."""
        parameters = {"times": 1} | parameters
        if fault in CONTROL_FAULTS:
            self._control.faults[fault] = {"seconds": 0.5, "announce_ms": 1000} | parameters
        elif fault in FAULTS:
            self._streaming.faults[fault] = parameters
        elif fault == "line":
            self._set_line(int(parameters["number"]), bool(parameters["level"]))
        elif fault == "bandwidth":
            self._streaming.bytes_per_s = float(parameters["mb_per_s"]) * 1e6
        elif fault == "dirty_start":
            self._leave_dirty()
        elif fault == "burst_trigger":
            self._memory["TriggerControl1"] = 1 << 31
        else:
            super().inject(fault, **parameters)

    def _leave_dirty(self) -> None:
        """As after a host that was killed while streaming: enabled, in mid-frame, with an acknowledge not fetched."""
        memory, up = self._memory, self._settings.alignment_bytes
        payload = -(-self._required["RequiredPayload"] // up) * up
        for name, value in zip(TRANSFER_SIZES, (1024, payload, 1, 0, 0, 1024), strict=True):
            memory[name] = value
        memory["SiControl"] = 1
        self._streaming.leave_behind([payload], self._view)
        self._exposures.start(time.monotonic(), None)
        self._acquiring = True
        self._control.leave_behind()

    def state(self) -> dict[str, Any]:
        exposures = self._exposures
        exposures.advance(time.monotonic())
        counts = dict(self.counts) | {"frames lost": exposures.lost, "triggers missed": exposures.missed_triggers}
        return {
            "counts": counts,
            "acquiring": self._acquiring,
            "streaming": self._streaming.enabled,
            "frame_rate_hz": 1.0 / exposures.period_s,
            "exposure_us": exposures.exposure_s * 1e6,
            "lines": self._lines,
        }

    def close(self) -> None:
        self._streaming.close()
        self._source.close()
