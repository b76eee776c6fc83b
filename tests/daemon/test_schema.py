"""The flat view of the settings."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, Field

from daemon.config import KNOWN
from daemon.schema import dotted, generic, settings_of


def test_places_and_names() -> None:
    assert dotted(("api", "tokens", 0, "secret")) == "api.tokens[0].secret"
    assert dotted(()) == ""
    assert generic("api.tokens[12].secret") == "api.tokens[].secret"


@pytest.mark.parametrize(
    ("name", "kind", "allowed", "unit"),
    [
        ("camera.gain_e_per_dn", "number", "a number above 0", "e⁻/DN"),
        ("camera.read_noise_e", "number", "a number of at least 0", "e⁻"),
        ("engine.ring_frames", "integer", "an integer of 4 to 4096", "frames"),
        ("cell.limits.max_voltage_v", "number", "a number", "V"),
        ("cell.capacity_mah", "number", "a number above 0", "mAh"),
        ("store.state_dir", "path", "a path", ""),
        ("api.socket", "path", "a path", ""),
        ("autostart.masks.split_touching", "boolean", "true or false", ""),
        ("autostart.experiment.steps", "list", "a list of 1 to 1000 items", ""),
        ("camera.options", "table", "a table", ""),
        ("service.log_level", "choice", 'one of "debug", "info", "warning", "error"', ""),
    ],
)
def test_a_setting_says_what_it_takes(name: str, kind: str, allowed: str, unit: str) -> None:
    setting = KNOWN[name]
    assert (setting.kind, setting.allowed, setting.unit) == (kind, allowed, unit)


def test_secrets_are_known() -> None:
    assert [name for name, setting in KNOWN.items() if setting.secret] == [
        "api.tokens[].secret",
        "api.tokens[].secret_sha256",
    ]


def test_required_settings_are_known() -> None:
    required = [name for name, setting in KNOWN.items() if setting.required]
    assert required == ["api.tokens[].name", "autostart.experiment.steps"]


def test_a_range_keeps_both_of_its_bounds() -> None:
    class Ranges(BaseModel):
        above: float = Field(gt=0.5)
        both: float = Field(gt=0.5, le=4)
        between: float = Field(gt=0, lt=1)
        below: int = Field(lt=7)
        half: float = Field(ge=0, lt=1)

    assert [setting.allowed for setting in settings_of(Ranges).values()] == [
        "a number above 0.5",
        "a number above 0.5, at most 4",
        "a number above 0, below 1",
        "an integer below 7",
        "a number at least 0, below 1",
    ]
