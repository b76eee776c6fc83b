"""Every reason the daemon can refuse or fail with, beyond those of the devices (`hw.errors`).

One root (`InstrumentError`), one enum of reasons a part, each with a stable code and a remedy sentence. The API turns
any of them into a problem document, the command line into a sentence and exit code 1, the log into one line.
"""

from __future__ import annotations

from hw.errors import (
    CameraError,
    CameraReason,
    CellReason,
    InstrumentError,
    PotentiostatError,
    Reason,
    RecordingError,
    RecordingReason,
)

__all__ = [
    "ApiError",
    "ApiReason",
    "CameraError",
    "CameraReason",
    "CellReason",
    "ClientError",
    "ClientReason",
    "ConfigError",
    "ConfigReason",
    "EngineError",
    "EngineReason",
    "ExperimentError",
    "ExperimentReason",
    "InsightError",
    "InsightReason",
    "InstrumentError",
    "MaskError",
    "MaskReason",
    "NamedFieldsError",
    "PotentiostatError",
    "Reason",
    "RecordingError",
    "RecordingReason",
    "RunError",
    "RunReason",
    "ServiceReason",
    "StoreError",
    "StoreReason",
    "TokenError",
    "TokenReason",
    "all_reasons",
]


class ConfigReason(Reason):
    """What is wrong with the configuration."""

    UNREADABLE = ("config.unreadable", "Check the path and its permissions.")
    SYNTAX = ("config.syntax", "Correct the TOML at the place named.")
    UNKNOWN_SETTING = ("config.unknown_setting", "Correct the name or remove the line.")
    BAD_VALUE = ("config.bad_value", "Correct the value at the place named; `docs/settings.md` lists ranges.")
    TLS = (
        "config.tls",
        "Give `api.tls_certificate` a PEM chain, the server's own certificate first, and `api.tls_key` its key without "
        "a passphrase, both readable by the service's user.",
    )
    TLS_EXPIRED = ("config.tls_expired", "Put a new certificate in place of the file; it is taken up by itself.")


class StoreReason(Reason):
    """Why the store cannot take or give data."""

    NOT_WRITABLE = (
        "store.not_writable",
        "Make the state directory writable for the service's user, or choose another.",
    )
    DISK_FULL = ("store.disk_full", "Free space on the state directory's file system; what is stored is intact.")
    CORRUPT = ("store.corrupt", "The damaged part is left out; export what remains and start a new run.")
    NEWER = ("store.newer", "This file was written by a newer version; update the software to read it.")
    NOT_A_RUN = ("store.not_a_run", "Name a run file written by photometryd or `photometryctl analyse`.")
    OVERLOADED = ("store.overloaded", "The disk is slower than the data; check its health or lower the frame rate.")
    LOCKED = ("store.locked", "Another photometryd uses this state directory; stop it first.")
    STOPPED = ("store.stopped", "Start the service again; what was stored before is intact.")
    NO_PARTICLE = ("store.no_such_particle", "List the particles to see their ids.")
    BAD_RANGE = ("store.bad_range", "Give times as numbers, seconds of run time.")
    EXISTS = ("store.exists", "Choose another file name or remove the old file first.")
    DISK_LOW = ("store.disk_low", "Back up or export runs, then delete old ones; the run is ended when it is full.")
    BACKUP_PLACE = ("store.backup_place", "Name a directory that exists, empty or with an earlier backup in it.")
    BACKUP_FULL = ("store.backup_full", "Make room where backups go, or name another folder; earlier ones are whole.")
    BACKUP_LATE = ("store.backup_late", "See whether the share is well, or raise `store.backup_deadline_s`; try again.")
    BACKUP_FAILED = ("store.backup_failed", "See whether the share is mounted and writable; earlier backups are whole.")
    BACKUP_DAMAGED = ("store.backup_damaged", "Take another backup; what is named does not match its check sum.")


class ExperimentReason(Reason):
    """Why an experiment cannot be run."""

    SYNTAX = ("experiment.syntax", "Write steps like 'Charge at 1C until 4.2 V' or 'Rest for 10 minutes'.")
    UNBOUNDED = ("experiment.unbounded", "Give the step an end: 'for 1 hour' or 'until 4.2 V'.")
    BAD_VALUE = ("experiment.bad_value", "Correct the value at the step named.")
    OUTSIDE_LIMITS = ("experiment.outside_limits", "Change the step or the safety limits; limits always win.")
    NO_CAPACITY = ("experiment.no_capacity", "Give the cell's capacity (`cell.capacity_mah`) to use C-rates.")
    UNSUPPORTED = ("experiment.unsupported", "Leave that part out, or write the step with a current or a voltage.")
    BUSY = ("experiment.busy", "Switch the cell off or wait until its experiment has ended.")
    NOT_RUNNING = ("experiment.not_running", "Start an experiment first.")
    CANCELLED = ("experiment.cancelled", "The cell was switched off meanwhile; start again if that is wanted.")


class RunReason(Reason):
    """Why a run cannot be started, found or changed."""

    BUSY = ("run.busy", "Stop the current run first.")
    NOT_FOUND = ("run.not_found", "List the runs to see which exist.")
    NOT_RUNNING = ("run.not_running", "Start a run first.")
    NO_PARTICLES = ("run.no_particles", "Check focus, exposure and illumination, then start again.")
    NOTHING_SHOWN = (
        "run.nothing_shown",
        "Look at a frame (`photometryctl frame --out f.png`): light, shutter, focus, stage. Measuring goes on by itself"
        " once the scene is back; where it is gone for good, start a new run.",
    )
    BAD_RECIPE = ("run.bad_recipe", "Correct the field named.")
    INTERNAL = ("run.internal", "What was measured is stored; make a bundle and report it, then start a new run.")
    DELETED = ("run.deleted", "Restore it from a backup; the catalogue keeps only what the run was.")
    NOT_EXPORTED = ("run.not_exported", "Back it up or export it first, or say that it may be lost (`--unexported`).")
    IN_USE = ("run.in_use", "Wait until what reads it has ended, then try again.")
    INTERRUPTED = ("run.interrupted", "The service ended before the run did; what was measured until then is stored.")


class InsightReason(Reason):
    """Why a finished run cannot be analysed further."""

    NO_RECORD = ("insight.no_record", "Name a run with a cell's record: models need its voltage and current.")
    NO_OCV = (
        "insight.no_ocv",
        "Give the equilibrium voltage with --ocv, or add a slow charge and discharge to the run.",
    )
    BAD_OCV = ("insight.bad_ocv", "Give a CSV with a header, SoC from 0 to 1 rising, and the cell's voltage at rest.")
    NO_PARTICLES = (
        "insight.no_particles",
        "Name particles of the run that have a calibration (`photometryctl table calibrations`, or the table "
        "`calibrations` of an export); where none has, the run needs rests or slow halves.",
    )


class MaskReason(Reason):
    """Why the masks of a run cannot be edited, or shown. An edit that is refused changes nothing."""

    NO_PARTICLE = ("masks.no_such_particle", "Read the masks again: name a particle that the newest version has.")
    BAD_OUTLINE = ("masks.bad_outline", "Draw one closed outline of at least three points around one area.")
    NEAR_EDGE = ("masks.near_edge", "Keep the outline within the bounds named: the scene drifts.")
    BAD_AREA = ("masks.bad_area", "Draw it within `min_area_px` and `max_area_px` of the run's recipe.")
    OVERLAP = ("masks.overlap", "Draw around the particle named, or remove or replace it before in the same request.")
    TOO_MANY_EDITS = ("masks.too_many_edits", "Send them in several requests.")
    NONE_LEFT = ("masks.none_left", "Leave at least one particle, or stop the run.")
    STALE = ("masks.stale", "Read the newest version, then edit that.")
    BASELINE = ("masks.baseline", "Wait until the run's `baseline_known` in the status is true.")
    NO_VERSION = ("masks.no_such_version", "List the versions of the run's masks.")


class EngineReason(Reason):
    """Why the camera engine is not measuring."""

    DIED = ("engine.died", "It is restarted by itself; see the log for the cause if it repeats.")
    SILENT = ("engine.silent", "It is restarted by itself; see the log for the cause if it repeats.")
    GAVE_UP = ("engine.gave_up", "It failed too often; mend the cause in the log, then restart the service.")
    BUSY = ("engine.busy", "Wait until the calibration that takes frames has ended, or cancel it; then try again.")
    PROTOCOL = ("engine.protocol", "Engine and daemon do not match; install one version of both.")
    PREPARE_DIED = ("engine.prepare_died", "Start the run again; the log has the cause. Signal 9 means: out of memory.")
    PREPARE_SLOW = (
        "engine.prepare_slow",
        "Raise `engine.prepare_timeout_s`; a busy or small computer takes longer.",
    )


class ApiReason(Reason):
    """Why a request is refused."""

    UNAUTHORISED = ("api.unauthorised", "Send 'Authorization: Bearer <token>' with a token of `photometryctl token`.")
    FORBIDDEN = ("api.forbidden", "Use a token with the scope named.")
    NOT_FOUND = ("api.not_found", "See /api/v1/openapi.json for the paths that exist.")
    METHOD = ("api.method_not_allowed", "Use one of the methods in the Allow header.")
    BAD_REQUEST = ("api.bad_request", "Correct the field named.")
    TOO_LARGE = ("api.too_large", "Send less at once.")
    CROSS_SITE = ("api.cross_site", "Ask from the instrument's own page, under the host name it is configured with.")
    MEDIA_TYPE = ("api.media_type", "Send and accept one of the media types named.")
    CONFLICT = ("api.conflict", "Use a new Idempotency-Key for a different request.")
    NOT_FINISHED = ("api.not_finished", "Wait until the operation named is done.")
    BUSY = ("api.busy", "Too much is going on at once; try again in a moment.")
    PORT_IN_USE = ("api.port_in_use", "Stop the other program or set `api.port` to a free port.")
    TOO_MANY_REQUESTS = ("api.too_many_requests", "Wait as long as Retry-After says, then ask less often.")
    TOO_SLOW = ("api.too_slow", "Send the whole request without pauses.")
    UNAVAILABLE = ("api.unavailable", "Try again when the part named is ready; see /api/v1/status.")
    INTERNAL = ("api.internal", "This is a fault of the software; make a bundle and report it.")


class TokenReason(Reason):
    """Why tokens cannot be read or changed."""

    DAMAGED = (
        "token.damaged",
        "Restore `tokens.json` from a backup, or move it away and make the tokens anew; until then the Unix socket and "
        "the configuration's own tokens let in.",
    )
    EXISTS = ("token.exists", "Choose another name, or revoke the old token first.")
    NOT_FOUND = ("token.not_found", "`photometryctl token list` shows the names.")
    BAD_NAME = ("token.bad_name", "Choose a name such as 'lab-pc' or 'anna@bench2'.")
    TOO_MANY = ("token.too_many", "Revoke tokens that nobody uses any more.")
    BUSY = ("token.busy", "Try again in a moment.")


class ServiceReason(Reason):
    """Why the process itself is not well."""

    STALLED = ("service.stalled", "If it lasts, systemd restarts the service; make a bundle afterwards and report it.")


class ClientReason(Reason):
    """Why the operator's tool got no answer from the daemon."""

    NOT_RUNNING = (
        "client.not_running",
        "Start it with 'systemctl start photometryd', or 'photometryd --simulate' without hardware.",
    )
    TIMEOUT = (
        "client.timeout",
        "See whether the service is well ('systemctl status photometryd'), or raise --timeout.",
    )
    DENIED = ("client.denied", "Run it as root or as a member of the service's group.")
    REFUSED = ("client.refused", "See what the daemon says.")
    UNTRUSTED = (
        "client.untrusted",
        "Give the certificate of who signed the instrument's with --ca-file, and the name it was made for in --url.",
    )
    BAD_ANSWER = ("client.bad_answer", "Check that --url or --socket names a photometryd of this version.")
    BAD_FILE = ("client.bad_file", "Correct the file at the place named.")


class ConfigError(InstrumentError):
    """The configuration cannot be used."""


class StoreError(InstrumentError):
    """The store cannot take or give data."""


class ExperimentError(InstrumentError):
    """The experiment cannot be run."""


class RunError(InstrumentError):
    """The run cannot be started, found or changed."""


class InsightError(InstrumentError):
    """The finished run cannot be analysed further."""


class MaskError(InstrumentError):
    """The masks of a run cannot be edited, or shown."""


class EngineError(InstrumentError):
    """The camera engine is not measuring."""


class ApiError(InstrumentError):
    """The request is refused."""


class NamedFieldsError(ApiError):
    """A request whose fields or parameters are wrong; each problem names its place."""

    def __init__(self, errors: list[dict[str, str]]) -> None:
        shown = "; ".join(f"{error['field']}: {error['detail']}" for error in errors[:5])
        super().__init__(ApiReason.BAD_REQUEST, shown)
        self.errors = errors


class TokenError(InstrumentError):
    """The file of tokens cannot be read or changed."""


class ClientError(InstrumentError):
    """The operator's tool cannot do what it was asked."""


def all_reasons() -> list[Reason]:
    """Every reason of the project, for docs and tests."""
    return [member for enum in Reason.__subclasses__() for member in enum]
