import subprocess
import sys

import pytest
from pydantic import BaseModel, ConfigDict

import hw.camera
import hw.potentiostat
from hw.camera.contract import Camera
from hw.drivers import DriverError, DriverReason, build_driver, checked_options
from hw.potentiostat.contract import Potentiostat

NEEDED = {"replay": {"path": "/nowhere/recording.h5"}}
TABLES = [(hw.camera.DRIVERS, Camera), (hw.potentiostat.DRIVERS, Potentiostat)]
EVERY = [(table, base, name) for table, base in TABLES for name in table]


class Options(BaseModel):
    model_config = ConfigDict(extra="forbid")

    exposure_us: float = 1.0
    nested: dict[str, int] = {}


@pytest.mark.parametrize(("table", "base", "name"), EVERY)
def test_every_driver_is_built_by_its_name_and_touches_nothing(table, base, name):
    driver = build_driver(table, name, NEEDED.get(name, {}))
    assert isinstance(driver, base)
    driver.close()


@pytest.mark.parametrize(("table", "base", "name"), EVERY)
def test_every_driver_refuses_options_it_does_not_have(table, base, name):
    with pytest.raises(DriverError) as caught:
        build_driver(table, name, NEEDED.get(name, {}) | {"no_such_option": 1})
    assert caught.value.reason is DriverReason.BAD_OPTION
    assert "no_such_option" in caught.value.detail and f"'{name}'" in caught.value.detail


@pytest.mark.parametrize("table", [table for table, _ in TABLES])
def test_an_unknown_driver_names_those_there_are(table):
    with pytest.raises(DriverError) as caught:
        build_driver(table, "twni", {})
    assert caught.value.reason is DriverReason.UNKNOWN
    assert "did you mean 'twin'?" in caught.value.detail
    assert all(name in caught.value.detail for name in table)
    with pytest.raises(DriverError) as far:
        build_driver(table, "zzz", {})
    assert "did you mean" not in far.value.detail


def test_options_are_checked_and_converted():
    assert checked_options(Options, "d", {"exposure_us": "5"}).exposure_us == 5.0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"exposure": 5}, ["no option 'exposure'", "did you mean 'exposure_us'?"]),
        ({"zzz": 5}, ["no option 'zzz'"]),
        ({"exposure_us": "long"}, ["'exposure_us'", "number"]),
        ({"nested": {"a": "b"}}, ["'nested.a'", "integer"]),
    ],
)
def test_a_wrong_option_is_named_with_its_fault(options, words):
    with pytest.raises(DriverError) as caught:
        checked_options(Options, "d", options)
    assert "'d'" in caught.value.detail
    assert all(word in caught.value.detail for word in words)


def test_drivers_that_are_not_used_are_not_imported():
    code = (
        "import sys, hw.camera, hw.potentiostat; from hw.drivers import build_driver;"
        "build_driver(hw.potentiostat.DRIVERS, 'none', {});"
        "print([m for m in sys.modules if m.startswith(('numba', 'h5py', 'hw.twin', 'hw.camera.'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert eval(done.stdout) in ([], ["hw.camera.contract"])
