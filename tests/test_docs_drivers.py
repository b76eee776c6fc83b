"""`docs/drivers.md` has every option of every driver with what it takes and its default, and no other."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from daemon.schema import Setting, settings_of
from hw.camera import DRIVERS as CAMERAS
from hw.potentiostat import DRIVERS as POTENTIOSTATS

PAGE = (Path(__file__).parents[1] / "docs" / "drivers.md").read_text(encoding="utf-8")
DRIVERS = [
    *(("camera", name, place) for name, place in CAMERAS.items()),
    *(("potentiostat", name, place) for name, place in POTENTIOSTATS.items()),
]


def rows(kind: str, name: str) -> dict[str, tuple[str, str]]:
    """Option -> what it takes and its default as in the driver's section; fails when there is no such section."""
    _, _, rest = PAGE.partition(f"\n### {kind}: `{name}`\n")
    assert rest, f"there is no section '{kind}: `{name}`'"
    section = rest.partition("\n### ")[0]
    found = re.findall(r"^\| `(\w+)` \| ([^|]+) \| ([^|]+) \| [^|]+ \|$", section, flags=re.MULTILINE)
    return {option: (takes, default) for option, takes, default in found}


def written(setting: Setting) -> str:
    """A default as the page writes it."""
    value = setting.default
    if value is None:
        return "required" if setting.required else "absent"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f'`"{value}"`' if isinstance(value, str) else f"`{value}`"


@pytest.mark.parametrize(("kind", "name", "place"), DRIVERS, ids=lambda value: value.rpartition(":")[2])
def test_every_option_is_there_with_what_it_takes_and_its_default(kind: str, name: str, place: str) -> None:
    module, driver = place.split(":")
    options = settings_of(getattr(importlib.import_module(module), driver).Settings)
    assert rows(kind, name) == {option: (setting.allowed, written(setting)) for option, setting in options.items()}


def test_every_section_is_a_driver() -> None:
    sections = re.findall(r"^### (\w+): `(\w+)`$", PAGE, flags=re.MULTILINE)
    assert sorted(sections) == sorted((kind, name) for kind, name, _ in DRIVERS)
