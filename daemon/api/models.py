"""The shapes of the answers: what OpenAPI publishes and `docs/api.md` explains. Fields may be added, never renamed."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from daemon.config import Scope
from daemon.events import EventKind
from daemon.layers import Origin
from daemon.parts import CellState, PartState, RunState

Number = float | None
"""A finite number, or null where nothing is known."""


class Answer(BaseModel):
    """Base of all answers; later versions may add fields."""

    model_config = ConfigDict(extra="allow", use_attribute_docstrings=True)


class FieldError(Answer):
    """One wrong field or parameter."""

    field: str
    detail: str


class Problem(Answer):
    """RFC 9457 problem document: the one shape of every refusal and failure."""

    type: str
    title: str
    status: int
    detail: str
    """What happened and where, as a sentence."""
    code: str
    """Stable dotted code; see docs/errors.md."""
    remedy: str
    """What to do about it, as a sentence."""
    instance: str | None = None
    errors: list[FieldError] | None = None
    """Each wrong field of a request, when there are several."""
    log_id: str | None = None
    """Finds the line in the log, for unexpected errors."""


class PartReply(Answer):
    """One part of the instrument."""

    name: str
    state: PartState
    reason: str = ""
    """Stable code, empty when ready."""
    detail: str = ""
    remedy: str = ""
    values: dict[str, Any] = {}
    """Numbers worth seeing beside the state; units in the names."""


class RunReply(Answer):
    """One run."""

    run_id: str
    name: str
    state: RunState
    started_utc: str
    """ISO 8601 with offset, of t_s = 0."""
    ended_utc: str | None = None
    path: str
    """The run's SQLite file on the instrument."""
    recipe: dict[str, Any]
    frames: int = 0
    particles: int = 0
    reason: str = ""
    """Code of why it failed or was stopped; empty when it ended as asked."""
    detail: str = ""
    exported_utc: str | None = None
    """When a backup or a whole export last took it elsewhere."""
    deleting_utc: str | None = None
    """When its deletion began; completed at the next start when it was cut short."""
    deleted_utc: str | None = None
    """When its file was removed; its state is `deleted` then."""


class RunList(Answer):
    """The runs, newest first."""

    runs: list[RunReply]


class CellReply(Answer):
    """The cell after a request."""

    state: CellState
    detail: str = ""
    values: dict[str, Any] = {}
    """mode, voltage_v, current_ma, step, cycle, host_loss."""


class DiskReply(Answer):
    """Room for results."""

    free_mb: int | None
    falls_mb_per_h: Number
    """How fast free space fell over the last ten minutes; null while that is not known."""
    full_in_h: Number
    """Until a run would be ended (`store.min_free_mb`) at that rate; null when not known."""


class StatusReply(Answer):
    """Everything at a glance."""

    state: PartState
    """The worst of the parts that matter; `ready` when all are."""
    measuring: bool
    """Whether a run is in the state `running`."""
    parts: list[PartReply]
    run: RunReply | None
    """The run in progress."""
    science: dict[str, Any]
    """Counts of particle states, ensemble state of charge, spread of rates and what it means (`rate_cv_means`), how
    many particles were warned of, the most unusual ones with a `reason` in words; {} without a run."""
    cell: CellReply
    last_event_seq: int
    """Sequence number of the newest event, for `GET /events?after=`."""
    frames: dict[str, Any] | None = None
    """Where every frame went: captured = idle + stored + dropped + in_flight."""
    faults: list[dict[str, Any]] = []
    """The last ones, newest first: code, detail, remedy, count, first_utc, last_utc."""
    disk: DiskReply | None = None
    memory_bytes: dict[str, int | None] | None = None
    """Resident memory by process."""
    loop_lag_s: Number = None
    """The longest the event loop was late."""
    selftest: dict[str, Any] | None = None
    """The last self-test: outcome, utc, failed and warned (names of checks); null before the first of this start."""
    utc: str
    """The instrument's wall clock, ISO 8601."""
    version: str


class Health(Answer):
    """The process answers; nothing more is promised."""

    status: Literal["ok"] = "ok"


class Readiness(Answer):
    """Whether the instrument can measure."""

    ready: bool
    blocking: list[PartReply]
    """The parts that keep it from measuring."""


class SettingReply(Answer):
    """One setting in effect."""

    value: Any
    """Secrets are shown as `********`."""
    origin: Origin
    """`simulate`: of the simulated instrument, `photometryd --simulate`."""


class ConfigReply(Answer):
    """Every setting in effect, by ``section.name``."""

    settings: dict[str, SettingReply]


class VersionReply(Answer):
    """Versions of the software; `api` changes only with the path prefix."""

    api: Literal["v1"] = "v1"
    version: str
    asks_for_tokens: bool
    """Whether requests over TCP need a bearer token."""


class OperationReply(Answer):
    """Work that takes longer than a second."""

    operation_id: str
    kind: str
    """`run.start`, `run.stop`, `run.masks`, `run.export`, `camera.configure`, `calibration.dark`, `calibration.flat`,
    `cell.experiment`, `selftest`, `bundle` or `backup`."""
    state: Literal["pending", "running", "done", "failed", "cancelled"]
    progress: float = Field(ge=0, le=1)
    log: list[str]
    result: dict[str, Any] | None
    """What it came to; `file_url` in it names an archive to download."""
    error: Problem | None
    """Why it failed."""
    url: str
    """Where to look again."""
    run_id: str | None = None
    """The run it started, for `run.start`."""


class OperationList(Answer):
    """Operations in memory, newest first."""

    operations: list[OperationReply]


class ParticleRow(Answer):
    """One particle; columns of the `particles` table."""

    particle_id: int
    parent_id: int | None
    y_px: Number
    x_px: Number
    area_px: Number
    equivalent_diameter_um: Number
    major_um: Number
    minor_um: Number
    aspect_ratio: Number
    solidity: Number
    nearest_neighbour_um: Number
    neighbours_within_10um: Number
    brightness_e: Number
    front_mode: Literal["core", "axial", "none"]
    calibration: Literal["monotone", "end_members", "folded", "none"]
    state: Literal["active", "partial", "dead", "lost"]
    axis_deg: Number
    """Of the long axis, from the image's x axis downwards; null for round particles."""
    axial_unknown_why: Literal["", "round", "short", "not_measured", "no_calibration"] | None
    """Why there is no axial gradient; empty where there is one, null in files of an earlier version."""
    shift_unknown_why: Literal["", "round", "short", "not_measured"] | None
    """Why there is no centroid shift."""


class ParticleList(Answer):
    """The particles of a run."""

    run_id: str
    particles: list[ParticleRow]


class MaskVersionReply(Answer):
    """One version of a run's masks."""

    version: int
    from_frame: int
    """Number of the first frame measured by it."""
    utc: str
    """Wall clock when it took effect, ISO 8601; empty in files of an earlier version of the software."""
    actor: str
    """Who edited, as the audit names it; empty for the first."""
    edits: list[dict[str, Any]]
    """As asked for, with the `new_particle_id` that each made."""
    particles: int
    """Particles that are measured."""


class MaskEditReply(MaskVersionReply):
    """The version that edits made."""

    run_id: str


class MaskOutline(Answer):
    """One particle of a version."""

    particle_id: int
    parent_id: int | None
    """The particle that it replaced."""
    state: Literal["active", "partial", "dead", "lost"]
    """What it is now, not when the version was made."""
    outline_px: list[list[float]]
    """Corners of its pixels' outline, [y, x] in the reference frame; sent back they give exactly these pixels."""


class MaskVersionList(Answer):
    """The versions of a run's masks, oldest first, or with `version` that one and its outlines."""

    run_id: str
    versions: list[MaskVersionReply] | None = None
    version: int | None = None
    from_frame: int | None = None
    utc: str | None = None
    actor: str | None = None
    edits: list[dict[str, Any]] | None = None
    particles: int | None = None
    height_px: int | None = None
    width_px: int | None = None
    outlines: list[MaskOutline] | None = None


class Trace(Answer):
    """One particle's series: lists of equal length, oldest first, one list for each column asked for."""

    particle_id: int
    frame: list[int]
    t_s: list[float]


class TraceList(Answer):
    """Traces, reduced so that every extreme of every column asked for is kept."""

    run_id: str
    columns: list[str]
    reduced: bool
    """False when every frame is there."""
    traces: list[Trace]


class ClipRow(Answer):
    """One clip: where and when, without its pixels."""

    clip_id: int
    particle_id: int
    onset_frame: int
    """Of the step that asked for it."""
    t0_s: float
    t1_s: float
    """Times of its first and last look."""
    y0_px: int
    x0_px: int
    """The patch's corner in the reference frame."""
    looks: int
    height: int
    width: int


class ClipList(Answer):
    """The clips of a run by time."""

    run_id: str
    clips: list[ClipRow]
    next_after: int | None = None
    """`after` of the next page; null when this is the last."""


class EventRow(Answer):
    """One event of a run."""

    event_id: int
    particle_id: int | None
    """Null: the instrument's own."""
    kind: EventKind
    t_s: Number
    detected_t_s: Number
    magnitude: Number
    """In the unit of its kind; see docs/events.md."""
    magnitude_sigma: Number
    score: Number
    detail: str
    """What the numbers do not say; empty where there is no more to say."""


class FeedEvent(EventRow):
    """One event of the live feed."""

    seq: int
    """Instrument-wide, rises with every event (not always by one), survives restarts."""
    run_id: str


class EventList(Answer):
    """Events of a run by rising `event_id`."""

    run_id: str
    events: list[EventRow]
    next_after: int | None
    """`after` of the next page; null when this is the last."""


class FeedPage(Answer):
    """A page of the event feed, oldest first."""

    events: list[FeedEvent]
    last_seq: int
    """`after` of the next request."""


class CycleRow(Answer):
    """One half cycle of one particle."""

    particle_id: int
    cycle: int
    half: Literal["charge", "discharge"]
    swing: Number
    soc_start: Number
    soc_end: Number
    onset_t_s: Number
    duration_s: Number
    rate_per_h: Number
    lag_s: Number
    hysteresis_v: Number
    retention: Number
    swing_sigma: Number
    rate_sigma_per_h: Number
    lag_sigma_s: Number
    retention_sigma: Number
    asymmetry: Number
    """ln(time on discharge / time on charge), each from 20 to 80 % of its swing; in the cycle's second half."""
    asymmetry_sigma: Number
    unknown_why: str | None
    """Why times and rate are null; empty when they are not."""


class CycleList(Answer):
    """Half cycles of a run."""

    run_id: str
    cycles: list[CycleRow]
    next_after: int | None = None
    """`after` of the next page; null when this is the last."""


class EnsembleRow(Answer):
    """The ensemble at one time."""

    t_s: float
    soc_mean: Number
    soc_std: Number
    active_fraction: Number
    rate_cv: Number


class EnsembleList(Answer):
    """The ensemble over time."""

    run_id: str
    ensemble: list[EnsembleRow]


class EchemList(Answer):
    """The cell's record; columns named by the Battery Data Format, positive current charges the cell."""

    run_id: str
    echem: list[dict[str, Any]]
    """`Test Time / s`, `Voltage / V`, `Current / A`, `Cycle Count / 1`, `Step Index / 1`, and further ones."""


class LogEntryReply(Answer):
    """One line of the log."""

    utc: str
    level: str
    message: str


class LogList(Answer):
    """Lines of the log, oldest first."""

    entries: list[LogEntryReply]


class ScopesReply(Answer):
    """Who the instrument takes the client for."""

    actor: str
    scopes: list[Scope]
