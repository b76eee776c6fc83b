"""Every reason the daemon can refuse or fail with, beyond those of the devices (`hw.errors`).

One root (`InstrumentError`), one enum of reasons a part, each with a stable code and a remedy sentence. The API turns
any of them into a problem document, the command line into a sentence and exit code 1, the log into one line.
"""

from __future__ import annotations

from hw.errors import CameraError, CameraReason, CellReason, InstrumentError, PotentiostatError, Reason

__all__ = [
    "ApiError",
    "ApiReason",
    "CameraError",
    "CameraReason",
    "CellReason",
    "ConfigError",
    "ConfigReason",
    "EngineError",
    "EngineReason",
    "ExperimentError",
    "ExperimentReason",
    "InstrumentError",
    "PotentiostatError",
    "Reason",
    "RecordingError",
    "RecordingReason",
    "RunError",
    "RunReason",
    "StoreError",
    "StoreReason",
    "all_reasons",
]


class ConfigReason(Reason):
    """What is wrong with the configuration."""

    UNREADABLE = ("config.unreadable", "Check the path and its permissions.")
    SYNTAX = ("config.syntax", "Correct the TOML at the place named.")
    UNKNOWN_SETTING = ("config.unknown_setting", "Correct the name or remove the line.")
    BAD_VALUE = ("config.bad_value", "Correct the value at the place named; `docs/settings.md` lists ranges.")


class StoreReason(Reason):
    """Why the store cannot take or give data."""

    NOT_WRITABLE = ("store.not_writable", "Make the state directory writable for the service's user, or choose another.")
    DISK_FULL = ("store.disk_full", "Free space on the state directory's file system; what is stored is intact.")
    CORRUPT = ("store.corrupt", "The damaged part is left out; export what remains and start a new run.")
    NEWER = ("store.newer", "This file was written by a newer version; update the software to read it.")
    NOT_A_RUN = ("store.not_a_run", "Name a run file written by photometryd or `photometryctl analyse`.")
    OVERLOADED = ("store.overloaded", "The disk is slower than the data; check its health or lower the frame rate.")
    LOCKED = ("store.locked", "Another photometryd uses this state directory; stop it first.")
    EXISTS = ("store.exists", "Choose another file name or remove the old file first.")


class ExperimentReason(Reason):
    """Why an experiment cannot be run."""

    SYNTAX = ("experiment.syntax", "Write steps like 'Charge at 1C until 4.2 V' or 'Rest for 10 minutes'.")
    UNBOUNDED = ("experiment.unbounded", "Give the step an end: 'for 1 hour' or 'until 4.2 V'.")
    BAD_VALUE = ("experiment.bad_value", "Correct the value at the step named.")
    OUTSIDE_LIMITS = ("experiment.outside_limits", "Change the step or the safety limits; limits always win.")
    NO_CAPACITY = ("experiment.no_capacity", "Give the cell's capacity (`cell.capacity_mah`) to use C-rates.")


class RecordingReason(Reason):
    """What is wrong with a recording."""

    UNREADABLE = ("recording.unreadable", "Check the path; HDF5 (.h5) and TIFF (.tif) recordings are read.")
    TRUNCATED = ("recording.truncated", "Copy the file again; what is whole was used.")
    BAD_DATASET = ("recording.bad_dataset", "Correct the dataset named; `docs/recordings.md` has the layout.")
    MISSING_VALUE = ("recording.missing_value", "Give the value on the command line with --set or --pixel-size-nm.")
    NO_PARTICLES = ("recording.no_particles", "Check focus and exposure, or lower `masks.threshold_sigma`.")


class RunReason(Reason):
    """Why a run cannot be started, found or changed."""

    BUSY = ("run.busy", "Stop the current run first.")
    NOT_FOUND = ("run.not_found", "List the runs to see which exist.")
    NOT_RUNNING = ("run.not_running", "Start a run first.")
    NO_PARTICLES = ("run.no_particles", "Check focus, exposure and illumination, then start again.")
    BAD_RECIPE = ("run.bad_recipe", "Correct the field named.")


class EngineReason(Reason):
    """Why the camera engine is not measuring."""

    DIED = ("engine.died", "It is restarted by itself; see the log for the cause if it repeats.")
    SILENT = ("engine.silent", "It is restarted by itself; see the log for the cause if it repeats.")
    GAVE_UP = ("engine.gave_up", "It failed too often; mend the cause in the log, then restart the service.")
    PROTOCOL = ("engine.protocol", "Engine and daemon do not match; install one version of both.")


class ApiReason(Reason):
    """Why a request is refused."""

    UNAUTHORISED = ("api.unauthorised", "Send 'Authorization: Bearer <token>' with a token the configuration lists.")
    FORBIDDEN = ("api.forbidden", "Use a token with the scope named.")
    NOT_FOUND = ("api.not_found", "See /api/v1/openapi.json for the paths that exist.")
    METHOD = ("api.method_not_allowed", "Use one of the methods in the Allow header.")
    BAD_REQUEST = ("api.bad_request", "Correct the field named.")
    TOO_LARGE = ("api.too_large", "Send less at once.")
    PORT_IN_USE = ("api.port_in_use", "Stop the other program or set `api.port` to a free port.")
    UNAVAILABLE = ("api.unavailable", "Try again when the part named is ready; see /api/v1/status.")
    INTERNAL = ("api.internal", "This is a fault of the software; make a bundle and report it.")


class ConfigError(InstrumentError):
    """The configuration cannot be used."""


class StoreError(InstrumentError):
    """The store cannot take or give data."""


class ExperimentError(InstrumentError):
    """The experiment cannot be run."""


class RecordingError(InstrumentError):
    """The recording cannot be read."""


class RunError(InstrumentError):
    """The run cannot be started, found or changed."""


class EngineError(InstrumentError):
    """The camera engine is not measuring."""


class ApiError(InstrumentError):
    """The request is refused."""


def all_reasons() -> list[Reason]:
    """Every reason of the project, for docs and tests."""
    return [member for enum in Reason.__subclasses__() for member in enum]
