"""Finding a driver by its configured name and checking its options."""

from __future__ import annotations

import difflib
import importlib
from typing import Any

from pydantic import BaseModel, ValidationError

from hw.errors import InstrumentError, Reason


class DriverReason(Reason):
    """Why a configured driver cannot be built."""

    UNKNOWN = ("driver.unknown", "Choose one of the drivers named.")
    BAD_OPTION = ("driver.bad_option", "Correct or remove the option named.")


class DriverError(InstrumentError):
    """The configured driver cannot be built."""


def build_driver(table: dict[str, str], name: str, options: dict[str, Any]) -> Any:
    """Construct the driver called `name` in `table` with `options` checked by its own settings model.

    Imports the driver's module only now: nothing is paid for drivers that are not used. Raises `DriverError`.
    """
    if name not in table:
        near, known = difflib.get_close_matches(name, table, n=1), ", ".join(sorted(table))
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise DriverError(DriverReason.UNKNOWN, f"there is no driver '{name}' (known: {known}){hint}")
    module_name, class_name = table[name].split(":")
    driver_class = getattr(importlib.import_module(module_name), class_name)
    return driver_class(checked_options(driver_class.Settings, name, options))


def checked_options(settings_class: type[BaseModel], driver: str, options: dict[str, Any]) -> BaseModel:
    """`options` as the driver's settings. Raises `DriverError` naming the option, its fault and a known name near."""
    try:
        return settings_class.model_validate(options)
    except ValidationError as error:
        problem = error.errors()[0]
        name = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            near = difflib.get_close_matches(name, settings_class.model_fields, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise DriverError(DriverReason.BAD_OPTION, f"driver '{driver}' has no option '{name}'{hint}") from None
        raise DriverError(DriverReason.BAD_OPTION, f"driver '{driver}', option '{name}': {problem['msg']}") from None
