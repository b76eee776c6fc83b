"""The root of every error the instrument raises, and the reasons a device can give.

An error carries a `Reason`: a stable code (used alike by API, log and docs), and a remedy sentence that a field
engineer can act on. Layers above `hw` add reasons of their own by subclassing `Reason` and `InstrumentError`.
"""

from __future__ import annotations

from enum import Enum


class Reason(Enum):
    """Base of all reason enums. A member's value is ``(code, remedy)``; the code never changes once released."""

    @property
    def code(self) -> str:
        """Stable dotted code, e.g. ``camera.unplugged``."""
        return str(self.value[0])

    @property
    def remedy(self) -> str:
        """What to do about it, as one sentence."""
        return str(self.value[1])


class InstrumentError(Exception):
    """Root of all errors of this project.

    `detail` says what happened and where (names the file, field, dataset or device); `reason` says of which kind it
    is and carries the remedy.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail

    @property
    def code(self) -> str:
        """The reason's stable code."""
        return self.reason.code

    @property
    def remedy(self) -> str:
        """The reason's remedy sentence."""
        return self.reason.remedy

    def __str__(self) -> str:
        end = "" if self.detail.endswith(("?", "!")) else "."
        return f"{self.detail.rstrip('.')}{end} {self.remedy}"


class CameraReason(Reason):
    """Why a camera cannot deliver frames."""

    NOT_FOUND = ("camera.not_found", "Check the cable and that the camera's serial number matches the configuration.")
    UNPLUGGED = ("camera.unplugged", "Plug the camera back in; acquisition resumes by itself.")
    STALLED = ("camera.stalled", "The camera is still listed but sends nothing; power-cycle it if this persists.")
    BUSY = ("camera.busy", "Stop the other program that holds the camera.")
    DENIED = ("camera.denied", "Install the udev rule shipped with the service, then replug the camera.")
    AMBIGUOUS = ("camera.ambiguous", "Name one of the cameras in `camera.options`, by its serial number.")
    DIRTY = ("camera.dirty", "Power-cycle the camera: another program left it streaming, and it does not stop.")
    SLOW_PORT = ("camera.slow_port", "Plug the camera into a USB 3 port with a USB 3 cable, or lower the frame rate.")
    NO_MEMORY = ("camera.no_memory", "Raise the kernel's usbcore.usbfs_memory_mb; `docs/field/camera.md` says how.")
    FROZEN = ("camera.frozen", "The camera sends one picture again and again; power-cycle it if this persists.")
    PROTOCOL = (
        "camera.protocol",
        "The camera breaks its protocol; update its firmware, or make a bundle and report it.",
    )
    FAULT = ("camera.fault", "Transfers fail; try another cable and port, then make a bundle and report it.")
    CHANGED = (
        "camera.changed",
        "Connect the run's own camera, or start a new run; name `pixel_format` and size in `camera.options`.",
    )
    BAD_SETTING = ("camera.bad_setting", "Choose a value inside the camera's range.")
    ENDED = ("camera.ended", "The recording has no more frames; start the replay again or choose another.")


class CellReason(Reason):
    """Why a potentiostat cannot be used or trusted."""

    NOT_FOUND = (
        "cell.not_found",
        "Check the cable and that the potentiostat's serial number matches the configuration.",
    )
    UNPLUGGED = ("cell.unplugged", "Plug the potentiostat back in; the cell stays off until an operator starts it.")
    STALLED = ("cell.stalled", "No sample arrived in time; check the potentiostat, the cell was switched off.")
    REFUSED = ("cell.refused", "The potentiostat refused the set point; check it against the device's range.")
    ENDED = ("cell.ended", "The recorded cell has no more samples; start the replay again or choose another.")
    UNSUITABLE = ("cell.unsuitable", "Use a potentiostat that can drive this cell; `docs/drivers.md` lists them.")
    DEVICE_ERROR = ("cell.device_error", "Do what the error of the potentiostat asks for, then start again.")
    READ_ONLY = ("cell.read_only", "A replayed cell cannot be driven; configure a live potentiostat.")
    LIMIT = ("cell.limit", "Find out why the limit was passed, then start again; the cell was switched off.")
    FOUND_ON = ("cell.found_on", "See what switched the cell on before this start; it was switched off.")
    DISOBEYED = ("cell.disobeyed", "Check leads and potentiostat: it does not do what it was told.")
    CLOCK = ("cell.clock", "Restart the potentiostat: its clock does not run as it should.")
    UNWATCHED = ("cell.unwatched", "Nobody watched the cell for too long; see the log for what held the service up.")
    HUNG = ("cell.hung", "The driver does not return; replug the potentiostat, then restart the service if it stays.")
    FAULT = ("cell.fault", "This is a fault of the driver; make a bundle and report it.")
    NOT_RECORDED = ("cell.not_recorded", "See the log for why samples cannot be stored; the cell was switched off.")
    IN_DOUBT = ("cell.in_doubt", "Disconnect the cell by hand: the potentiostat did not confirm that it is off.")


class UsbReason(Reason):
    """Why a USB device cannot be used, before it is known what kind of instrument it is."""

    NOT_FOUND = ("usb.not_found", "Check the cable, the port and the device's power.")
    UNPLUGGED = ("usb.unplugged", "Plug the device back in.")
    STALLED = ("usb.stalled", "The device refused the request; it is asked again after its endpoint is cleared.")
    BUSY = ("usb.busy", "Stop the other program that holds the device.")
    DENIED = ("usb.denied", "Install the udev rule shipped with the service, then replug the device.")
    TIMEOUT = ("usb.timeout", "The device did not answer in time; power-cycle it if this persists.")
    BABBLE = ("usb.babble", "The device sent more than was asked for; make a bundle and report it.")
    NO_MEMORY = ("usb.no_memory", "Raise the kernel's usbcore.usbfs_memory_mb; `docs/field/camera.md` says how.")
    PROTOCOL = ("usb.protocol", "The device answers against its protocol; update its firmware, or make a bundle.")
    FAULT = ("usb.fault", "The transfer failed; try another cable and port, then make a bundle and report it.")


class RecordingReason(Reason):
    """What is wrong with a recording."""

    UNREADABLE = ("recording.unreadable", "Check the path; HDF5 (.h5) and TIFF (.tif) recordings are read.")
    TRUNCATED = ("recording.truncated", "Copy the file again from where it was recorded.")
    BAD_DATASET = ("recording.bad_dataset", "Correct the dataset named; `docs/recordings.md` has the layout.")
    BAD_VALUE = ("recording.bad_value", "Correct the value given; `docs/recordings.md` lists names and ranges.")
    MISSING_VALUE = (
        "recording.missing_value",
        "Give it with `--set` (or `--pixel-size-nm`); in the settings below `camera`, or below `overrides` in the "
        "replaying driver's `options`.",
    )
    NO_PARTICLES = ("recording.no_particles", "Check focus and exposure, or lower `masks.threshold_sigma`.")


class CameraError(InstrumentError):
    """The camera cannot deliver frames."""


class PotentiostatError(InstrumentError):
    """The potentiostat cannot be driven or read."""


class UsbError(InstrumentError):
    """A USB device cannot be reached or used. Drivers turn it into an error of their own kind."""


class RecordingError(InstrumentError):
    """The recording cannot be read. `index` is the first frame or sample at fault, None where it is not one of them."""

    def __init__(self, reason: Reason, detail: str, index: int | None = None) -> None:
        super().__init__(reason, detail)
        self.index = index
