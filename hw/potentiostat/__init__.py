"""Potentiostat drivers: one file a driver, one line each in `DRIVERS`."""

DRIVERS: dict[str, str] = {
    "keithley": "hw.potentiostat.keithley.driver:KeithleyPotentiostat",
    "methodscript": "hw.potentiostat.methodscript.driver:MethodScriptPotentiostat",
    "none": "hw.potentiostat.none:NoPotentiostat",
    "replay": "hw.potentiostat.replay:ReplayPotentiostat",
    "twin": "hw.potentiostat.twin:TwinPotentiostat",
}
"""Driver name -> ``module:class``. The class has `Settings` (a pydantic model) and takes one as its only argument."""
