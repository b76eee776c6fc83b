"""Where settings come from: a TOML file and the environment, laid over each other with their origins remembered."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from daemon.errors import ConfigError, ConfigReason
from daemon.schema import Setting

ENVIRONMENT_PREFIX = "PHOTOMETRYD_"
MAX_FILE_BYTES = 1_000_000  # a settings file is a few hundred lines; more is a wrong path
NUMBER_KINDS = ("integer", "number", "boolean", "list", "table")

Origin = Literal["default", "simulate", "file", "env"]


def read_toml(path: Path) -> dict[str, Any]:
    """The file's tables. Raises `ConfigError` (UNREADABLE, SYNTAX with line and column)."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(ConfigReason.UNREADABLE, f"cannot read {path}: {error.strerror or error}") from None
    if len(raw) > MAX_FILE_BYTES:
        raise ConfigError(ConfigReason.UNREADABLE, f"{path} is larger than {MAX_FILE_BYTES} bytes: no settings file")
    try:
        return tomllib.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ConfigError(ConfigReason.SYNTAX, f"{path} is not UTF-8 text (at line {line})") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(ConfigReason.SYNTAX, f"{path} is not valid TOML: {error}") from None


class Layers:
    """Tables laid over each other, remembering who set what."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.origins: dict[str, Origin] = {}

    def add(self, origin: Origin, top: dict[str, Any]) -> None:
        """Lay `top` over what is there, table by table."""
        self._overlay(origin, self.values, top, "")

    def _overlay(self, origin: Origin, base: dict[str, Any], top: dict[str, Any], prefix: str) -> None:
        if base.get("driver") not in (None, top.get("driver", base.get("driver"))):
            base["options"] = {}  # another driver's
            self._forget(f"{prefix}options")
        for key, value in top.items():
            place = f"{prefix}{key}"
            if isinstance(value, dict) and place != "autostart":  # a recipe is taken whole
                below = base[key] if isinstance(base.get(key), dict) else {}
                base[key] = below
                self._overlay(origin, below, value, f"{place}.")
            else:
                base[key] = value
                self._forget(place)
                self.origins |= dict.fromkeys(_leaves(place, value), origin)

    def _forget(self, place: str) -> None:
        self.origins = {
            name: origin for name, origin in self.origins.items() if name != place and not name.startswith(f"{place}.")
        }


def _leaves(place: str, value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(f"{place}.{key}", inner)
    else:
        yield place


def from_environment(
    environ: Mapping[str, str], known: Mapping[str, Setting]
) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """The tables that ``PHOTOMETRYD_SECTION__NAME`` variables spell, and the (place, variable) that are no setting."""
    tables: dict[str, Any] = {}
    unknown = []
    for variable, raw in sorted(environ.items()):
        if not variable.startswith(ENVIRONMENT_PREFIX) or "__" not in variable or not raw:
            continue
        *path, name = variable.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
        place = ".".join([*path, name])
        is_option = path[-1:] == ["options"] and ".".join(path) in known
        if place not in known and not is_option:
            unknown.append((place, variable))
            continue
        table = tables
        for part in path:
            table = table.setdefault(part, {})
        table[name] = _typed(raw, known.get(place))
    return tables, unknown


def _typed(raw: str, setting: Setting | None) -> Any:
    """An environment value as TOML would have it; text where the setting takes text, or where it is no TOML value."""
    if setting is not None and setting.kind not in NUMBER_KINDS:
        return raw
    try:
        return tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        return raw
