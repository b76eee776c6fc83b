"""Camera drivers: one file a driver, one line each in `DRIVERS`."""

DRIVERS: dict[str, str] = {
    "loop": "hw.camera.loop:LoopCamera",
    "replay": "hw.camera.replay:ReplayCamera",
    "twin": "hw.camera.twin:TwinCamera",
    "u3v": "hw.camera.u3v.camera:U3vCamera",
}
"""Driver name -> ``module:class``. The class has `Settings` (a pydantic model) and takes one as its only argument."""
