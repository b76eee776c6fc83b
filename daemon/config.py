"""The settings: one schema for validation, docs and `GET /config`. Strict TOML in, typed settings out.

Unknown names are errors that carry the nearest known one; every problem names its place as ``section.name``.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

import hw.camera
import hw.potentiostat
from daemon.cell.experiment import parse_experiment
from daemon.diagnostics.redact import MASK, WORDS, redacted
from daemon.errors import ConfigError, ConfigReason, ExperimentError
from daemon.layers import Layers, Origin, from_environment, read_toml
from daemon.recipe import CellLimits, Positive, Recipe, Strict
from daemon.schema import Setting, dotted, generic, settings_of
from daemon.simulate import simulated
from hw.drivers import DriverError, build_driver

DEFAULT_PATH = Path("/etc/photometryd/photometryd.toml")
MAX_SOCKET_BYTES = 107  # the kernel's limit on the path of a Unix socket
MAX_SHOWN = 20  # problems in one message
TOKEN_FILE = "tokens.json"  # in the state directory

Scope = Literal["read", "operate", "admin"]
FilePath = Annotated[Path, Field(strict=False)]  # TOML has no paths, only strings


class CameraSettings(Strict):
    """The camera, and what it does not say of itself."""

    driver: str = "twin"
    """Name in the table of camera drivers (`hw.camera.DRIVERS`)."""
    options: dict[str, Any] = Field(default={})
    """The driver's own settings; each driver documents and checks them."""
    pixel_size_nm: Positive | None = None
    """Object-side size of a pixel; the driver's value when absent."""
    gain_e_per_dn: Positive | None = None
    """Electrons a DN stands for; the driver's value, or one fitted to static pixels, when absent."""
    read_noise_e: Annotated[float, Field(ge=0)] | None = None
    """Read noise of a pixel, one standard deviation; the driver's value, one fitted, or a typical one, when absent."""
    dark_dn: Annotated[float, Field(ge=0)] | None = None
    """Level of an unlit pixel; the driver's value, a dark calibration, or one fitted, when absent."""
    frame_deadline_s: Positive = 2.0
    """Longest wait for a frame before the camera counts as stalled."""
    start_timeout_s: Positive = 20.0  # a reset of the bus takes 8 s
    """Longest wait of a run's start for a camera that is being opened, and for its engine to take each order."""


class PotentiostatSettings(Strict):
    """The potentiostat."""

    driver: str = "twin"
    """Name in the table of potentiostat drivers (`hw.potentiostat.DRIVERS`)."""
    options: dict[str, Any] = Field(default={})
    """The driver's own settings; each driver documents and checks them."""
    sample_deadline_s: Positive = 2.0
    """Longest wait for a sample before the cell is switched off."""


class CellSettings(Strict):
    """The cell under test."""

    capacity_mah: Positive | None = None
    """Nominal capacity, what 1C means; the potentiostat's value when absent."""
    electrode: Literal["cathode", "anode"] = "cathode"
    """Which electrode the microscope watches: a cathode's particles lose lithium while the cell charges."""
    limits: CellLimits = CellLimits()
    """Safety limits of every experiment."""


class EngineSettings(Strict):
    """The camera engine."""

    ring_frames: int = Field(default=64, ge=4, le=4096)
    """Frame slots between camera and kernels; a full ring drops the newest frame and counts it."""
    batch_s: Positive = 0.05
    """How often measures cross to the daemon."""
    link_batches: int = Field(default=64, ge=4, le=4096)
    """Batches that may wait for the daemon before the newest is dropped and counted."""
    max_restarts: int = Field(default=5, ge=0)
    """Restarts within `restart_window_s` before giving up."""
    restart_window_s: Positive = 60.0
    """The time in which restarts are counted."""
    silence_s: Positive = 5.0  # twice the frame deadline and a second: slower than any healthy stage
    """Longest silence of a live engine before it is killed and restarted."""
    start_timeout_s: Positive = 90.0  # first start compiles the kernels: 60 s on the slowest machine tried
    """Longest start of the engine, kernels to be compiled included."""
    prepare_timeout_s: Positive = 60.0
    """Longest search for the particles, or edit of their masks."""
    step_false_alarms_per_day: Positive = 1.0
    """Designed false alarms of the step detector, for the whole instrument."""


class StoreSettings(Strict):
    """Where and how results are kept."""

    state_dir: FilePath = Path("/var/lib/photometryd")
    """Directory of the catalogue, the runs and the logs."""
    commit_interval_s: Positive = 1.0
    """What a power cut may cost."""
    answer_timeout_s: Positive = 10.0
    """Longest wait for the beginning or end of a run on disk; its last results, and the stop, have three times that."""
    min_free_mb: int = Field(default=200, ge=0)
    """Below this much free space a run is stopped and none is started."""
    low_free_mb: int = Field(default=1000, ge=0)
    """Below this much free space `disk_low` is told."""
    low_full_h: float = Field(default=24.0, ge=0)
    """`disk_low` is told when the disk is full sooner than this, at the rate of the last minutes."""
    keep_days: Positive | None = None
    """Exported runs that began longer ago are deleted; absent, none is deleted for its age."""
    keep_free_mb: int = Field(default=0, ge=0)
    """Exported runs are deleted, oldest first, until this much is free; 0 deletes none for room."""
    delete_unexported: bool = False
    """Whether these two may take runs that no backup or export holds."""
    backup_dir: FilePath | None = None
    """Where backups go unless a request names a directory."""
    backup_deadline_s: Positive = 21600.0
    """Longest time of a backup."""


class Token(Strict):
    """One bearer token of the HTTP API."""

    name: str = Field(min_length=1, max_length=100)
    """Who holds it; appears in the audit record."""
    secret: str | None = Field(default=None, min_length=16, json_schema_extra={"secret": True})
    """What the client sends; never shown again."""
    secret_sha256: str | None = Field(
        default=None, min_length=64, max_length=64, pattern="^[0-9a-f]*$", json_schema_extra={"secret": True}
    )
    """In place of `secret`, its SHA-256 in hex; only for a secret of random characters."""
    scopes: list[Scope] = Field(default=["read"], min_length=1)
    """What it may do; `operate` includes `read`, `admin` includes both."""

    @property
    def digest(self) -> str:
        """SHA-256 of the secret, in hex."""
        return self.secret_sha256 or sha256((self.secret or "").encode()).hexdigest()


class ApiSettings(Strict):
    """The HTTP API."""

    host: str = "127.0.0.1"
    """Loopback by default; tokens are required on any other address."""
    port: int = Field(default=8470, ge=0, le=65535)
    """0 takes a free port."""
    socket: FilePath | None = None
    """Unix socket, guarded by file permission (0660)."""
    tokens: list[Token] = Field(default=[])
    """Beside those of `photometryctl token`. Without any, loopback requests have every scope; else each needs one."""
    tls_certificate: FilePath | None = None
    """PEM chain, the server's own certificate first: https on the TCP port; taken up again when the file changes."""
    tls_key: FilePath | None = None
    """Its key, PEM without a passphrase; when absent it is looked for in `tls_certificate`."""
    max_body_bytes: int = Field(default=1_000_000, ge=1_000)
    """Largest request that is read."""
    max_followers: int = Field(default=100, ge=1)
    """Event streams open at once."""
    max_connections: int = Field(default=500, ge=10, le=50_000)
    """Connections open at once over TCP; beyond, those idle for longest are closed, of whoever has most."""
    max_requests_per_s: Positive = 500.0
    """Of one address or one token; beyond twice that at once, 429. Switching the cell off is never refused so."""


class ServiceSettings(Strict):
    """The process itself."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least important lines that are logged."""
    thread_stall_s: Positive = 10.0
    """Longest time without progress of a vital part before the systemd watchdog is no longer fed."""


class Settings(Strict):
    """Everything."""

    camera: CameraSettings = CameraSettings()
    """The camera."""
    potentiostat: PotentiostatSettings = PotentiostatSettings()
    """The potentiostat."""
    cell: CellSettings = CellSettings()
    """The cell under test."""
    engine: EngineSettings = EngineSettings()
    """The camera engine."""
    store: StoreSettings = StoreSettings()
    """Where results are kept."""
    api: ApiSettings = ApiSettings()
    """The HTTP API."""
    service: ServiceSettings = ServiceSettings()
    """The process itself."""
    autostart: Recipe | None = None
    """A run that starts by itself once its parts are ready, tried again when it could not begin to measure; one that
    drives the cell only within ten minutes of the start, and not after the cell was missing."""


@dataclass(frozen=True)
class LoadedSettings:
    """Settings in force, and where each came from."""

    settings: Settings
    origins: dict[str, Origin]
    """Dotted name -> origin; a list has one origin, a driver's options have one each."""
    path: Path | None
    """The file that was read, if any."""


@dataclass(frozen=True)
class Problem:
    """One thing wrong with the settings: a dotted place and a sentence that names it."""

    reason: ConfigReason
    place: str
    sentence: str


class BadSettings(ConfigError):
    """The settings cannot be used; `problems` has one entry for each thing to correct."""

    def __init__(self, problems: list[Problem], source: str) -> None:
        self.problems = tuple(problems)
        shown = [problem.sentence for problem in problems[:MAX_SHOWN]]
        more = len(problems) - len(shown)
        detail = f"{source}: " + "; ".join(shown) + (f"; and {more} more" if more else "")
        super().__init__(problems[0].reason, detail)


def load_settings(
    path: Path | None, *, simulate: bool = False, environ: Mapping[str, str] = os.environ
) -> LoadedSettings:
    """Read, check and combine the settings: defaults, then `--simulate`'s, then the file's, then the environment's.

    `path` None reads no file. Environment names are ``PHOTOMETRYD_<SECTION>__<NAME>``; empty ones count as unset.
    Raises `ConfigError` (`BadSettings` with every problem found, once the file is valid TOML). Blocking.
    """
    layers = Layers()
    if simulate:
        layers.add("simulate", simulated(environ))
    if path is not None:
        layers.add("file", read_toml(path))
    variables, unknown = from_environment(environ, KNOWN)
    layers.add("env", variables)
    problems = [_unknown(place, f" (environment variable {variable})") for place, variable in unknown]
    settings = _validated(layers.values, problems)
    if settings is not None:
        problems.extend(_cross_checked(settings))
    if problems or settings is None:
        raise BadSettings(problems, str(path) if path else "settings")
    origins: dict[str, Origin] = {
        name: "default" for name, setting in KNOWN.items() if setting.kind != "table" and "[]" not in name
    }
    return LoadedSettings(settings, origins | layers.origins, path)


def check_drivers(settings: Settings) -> None:
    """Check the drivers' own options by importing and constructing them, which touches no device.

    Raises `BadSettings`. Blocking.
    """
    problems = []
    for section, table, part in (
        ("camera", hw.camera.DRIVERS, settings.camera),
        ("potentiostat", hw.potentiostat.DRIVERS, settings.potentiostat),
    ):
        try:
            build_driver(table, part.driver, part.options)
        except DriverError as error:
            place = f"{section}.options"
            problems.append(Problem(ConfigReason.BAD_VALUE, place, f"'{place}': {error.detail}"))
    if problems:
        raise BadSettings(problems, "settings")


MAY_HOLD_SECRETS = ("camera.options", "potentiostat.options")
"""Beside what the schema calls a secret: drivers of other makers name theirs as they like."""


def masked(settings: Settings) -> dict[str, Any]:
    """The settings as JSON values with secrets masked, for `GET /config`, logs and bundles."""
    values = settings.model_dump(mode="json")
    for token in values["api"]["tokens"]:
        token |= {name: MASK for name in ("secret", "secret_sha256") if token[name] is not None}
    for name in MAY_HOLD_SECRETS:
        section, _, setting = name.partition(".")
        values[section][setting] = _without_secrets(values[section][setting])
    return values


def _without_secrets(value: Any) -> Any:
    """A driver's options: whatever a name calls a secret is masked, and passwords inside texts."""
    if isinstance(value, dict):
        return {name: MASK if _is_secret(name, inner) else _without_secrets(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_without_secrets(inner) for inner in value]
    return redacted(value) if isinstance(value, str) else value


def _is_secret(name: str, value: Any) -> bool:
    return bool(value) and re.search(WORDS, name, re.IGNORECASE) is not None


def _validated(values: dict[str, Any], problems: list[Problem]) -> Settings | None:
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        problems.extend(_problem(dict(entry)) for entry in error.errors(include_url=False))
        return None


def _problem(entry: dict[str, Any]) -> Problem:
    place, kind = dotted(entry["loc"]), entry["type"]
    if kind == "extra_forbidden":
        return _unknown(place)
    if kind == "value_error":
        message = entry["msg"].removeprefix("Value error, ")
        return Problem(ConfigReason.BAD_VALUE, place, f"'{place}': {message}")
    setting = KNOWN.get(generic(place))
    allowed = setting.allowed if setting else entry["msg"].removeprefix("Input should be ")
    if kind == "missing":
        return Problem(ConfigReason.BAD_VALUE, place, f"'{place}' is missing: it takes {allowed}")
    shown = _shown(entry["input"], generic(place))
    return Problem(ConfigReason.BAD_VALUE, place, f"'{place}' is {shown}: it takes {allowed}")


def _shown(value: Any, name: str) -> str:
    """A value for a message: short, and masked where it is or may hold a secret."""
    if name in MAY_HOLD_SECRETS or any(each.secret and each.name.startswith(name) for each in KNOWN.values()):
        return MASK
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict | list):
        return "a table" if isinstance(value, dict) else f"a list of {len(value)} items"
    text = redacted(repr(value))
    return text if len(text) <= 80 else f"{text[:77]}..."


def _unknown(place: str, where: str = "") -> Problem:
    """An unknown setting with the nearest known one: among its neighbours first, then by its own name anywhere."""
    name = generic(place)
    section, _, last = name.rpartition(".")
    neighbours = {known.rpartition(".")[2]: known for known in KNOWN if known.rpartition(".")[0] == section}
    near = [neighbours[close] for close in difflib.get_close_matches(last, neighbours, n=1)]
    near += [known for known in KNOWN if known.rpartition(".")[2] == last]
    near += difflib.get_close_matches(name, KNOWN, n=1, cutoff=0.8)
    hint = f", did you mean '{near[0]}'?" if near else f" (known here: {', '.join(neighbours) or 'nothing'})"
    return Problem(ConfigReason.UNKNOWN_SETTING, place, f"there is no setting '{place}'{where}{hint}")


def _cross_checked(settings: Settings) -> Iterator[Problem]:
    """What single settings cannot know of each other."""
    faults = (_driver_faults(settings), _open_faults(settings), _api_faults(settings.api), _other_faults(settings))
    for place, sentence in chain(*faults):
        yield Problem(ConfigReason.BAD_VALUE, place, f"'{place}' {sentence}")


def _driver_faults(settings: Settings) -> Iterator[tuple[str, str]]:
    for section, table, name in (
        ("camera", hw.camera.DRIVERS, settings.camera.driver),
        ("potentiostat", hw.potentiostat.DRIVERS, settings.potentiostat.driver),
    ):
        if name not in table:
            near = difflib.get_close_matches(name, table, n=1)
            hint = f", did you mean '{near[0]}'?" if near else ""
            yield f"{section}.driver", f"is '{name}': it takes one of {', '.join(sorted(table))}{hint}"


def _open_faults(settings: Settings) -> Iterator[tuple[str, str]]:
    host, made = settings.api.host, settings.store.state_dir / TOKEN_FILE
    if not _is_loopback(host) and not settings.api.tokens and not os.path.exists(made):
        yield (
            "api.host",
            f"is '{host}', which others can reach: add at least one of api.tokens, make one with "
            "'photometryctl token create', or use 127.0.0.1",
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _api_faults(api: ApiSettings) -> Iterator[tuple[str, str]]:
    for number, token in enumerate(api.tokens):
        if (token.secret is None) == (token.secret_sha256 is None):
            yield f"api.tokens[{number}]", "takes either a secret or a secret_sha256"
    if api.tls_key is not None and api.tls_certificate is None:
        yield "api.tls_key", "has no api.tls_certificate beside it"
    for what, values in (("name", [t.name for t in api.tokens]), ("secret", [t.digest for t in api.tokens])):
        if len(set(values)) < len(values):
            yield "api.tokens", f"has two tokens with the same {what}"
    if api.socket is not None and len(os.fsencode(api.socket)) > MAX_SOCKET_BYTES:
        yield "api.socket", f"is longer than {MAX_SOCKET_BYTES} bytes, the kernel's limit"


def _other_faults(settings: Settings) -> Iterator[tuple[str, str]]:
    if not settings.store.state_dir.is_absolute():
        yield "store.state_dir", f"is '{settings.store.state_dir}': it takes an absolute path"
    backup_dir = settings.store.backup_dir
    if backup_dir is not None and not backup_dir.is_absolute():
        yield "store.backup_dir", f"is '{backup_dir}': it takes an absolute path"
    if 0 < settings.store.keep_free_mb <= settings.store.min_free_mb:
        yield (
            "store.keep_free_mb",
            f"is {settings.store.keep_free_mb}: it must exceed store.min_free_mb ({settings.store.min_free_mb}), "
            "or runs are refused before room is made",
        )
    if settings.engine.silence_s <= settings.camera.frame_deadline_s:
        yield (
            "engine.silence_s",
            f"is {settings.engine.silence_s:g}: it must exceed camera.frame_deadline_s "
            f"({settings.camera.frame_deadline_s:g}), or a slow camera counts as a dead engine",
        )
    if settings.autostart is not None and settings.autostart.experiment is not None:
        try:
            parse_experiment(settings.autostart.experiment.steps)
        except ExperimentError as error:
            yield "autostart.experiment.steps", f"cannot be understood: {error.detail}"


KNOWN: dict[str, Setting] = settings_of(Settings)
"""Every setting by dotted name."""
