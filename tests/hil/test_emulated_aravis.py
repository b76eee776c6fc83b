"""Aravis beside the emulated camera: the features it reads, and its own account of the frames."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from genicam.genapi import EAccessMode, EInterfaceType

from hw.twin.usb.client import BusClient
from tests.hil.gencp import Host

needs_aravis = pytest.mark.skipif(
    shutil.which("arv-tool-0.8") is None or shutil.which("arv-camera-test-0.8") is None,
    reason="Aravis' tools are missing: apt-get install aravis-tools aravis-tools-cli",
)


STATES: dict[str, list[str]] = {
    "power-on": [],
    "binned": ["BinningHorizontal=2", "BinningVertical=2", "PixelFormat=Mono12p", "Width=20", "OffsetX=6", "OffsetY=2"],
    "triggered": [
        "TriggerSelector=FrameStart", "TriggerMode=On", "TriggerSource=Line2", "TriggerActivation=FallingEdge",
        "TriggerDelay=123.4", "AcquisitionMode=MultiFrame", "AcquisitionFrameCount=7",
    ],
    "other selectors": ["TriggerSelector=FrameBurstStart", "LineSelector=Line1", "LineSource=ExposureActive"],
    "analogue": ["Gain=7.3", "BlackLevel=-17", "ExposureTime=1234.5", "AcquisitionFrameRate=33.25"],
    "automatic": ["GainAuto=Continuous", "ExposureAuto=Continuous"],
    "unlimited": ["DeviceLinkThroughputLimitMode=Off", "AcquisitionFrameRateEnable=0", "ExposureTime=20000"],
    "limited": ["DeviceLinkThroughputLimit=1000000", "PixelFormat=Mono16"],
    "chunks": ["ChunkModeActive=1", "ChunkSelector=Gain", "ChunkEnable=1", "ChunkSelector=FrameID"],
}  # fmt: skip
LINE = re.compile(r"\s+(\w+)\s*: \[(\w\w)\] '(\w+)'(?: = (.*))?")
LIMITS = re.compile(r"(\w+) = (\S+).*? min:(\S+) max:(\S+?)(?: inc:(\S+))?$")


def arv(*arguments: str) -> str:
    told = subprocess.run(["arv-tool-0.8", *arguments], capture_output=True, text=True, timeout=30, check=False)
    assert told.returncode == 0 and "rror" not in told.stderr, told.stderr
    return told.stdout


@needs_aravis
@pytest.mark.parametrize("state", STATES)
def test_aravis_and_the_reference_read_equal_features(plug: Callable[..., Host], state: str) -> None:
    plug().close()
    set_up = STATES[state]
    if set_up:
        arv("control", *set_up)
    aravis = {match[3]: match for match in map(LINE.match, arv("values").splitlines()) if match}
    values = [name for name, match in aravis.items() if match[4] is not None]
    limits = {match[1]: match for match in map(LIMITS.match, arv("control", *values).splitlines()) if match}
    host = Host()
    nodes = host.nodes()
    readable = {name for name, node in _features(nodes) if node.get_access_mode() in (EAccessMode.RO, EAccessMode.RW)}
    assert set(values) == {name for name in readable if not _is_command(nodes, name)}
    assert len(values) > 45 and len(limits) > 10
    locked = set(re.findall(r'Name="(\w+)"[^>]*>\s*<pIsLocked>', host.file()[1].decode()))
    assert 5 < len(locked) < 20
    for name in sorted(values):
        node = nodes.get_node(name)
        assert _equal(aravis[name][4], node), (name, aravis[name][4], node.to_string())
        if name not in locked:  # Aravis' tool does not show locks
            assert aravis[name][2] == ("RW" if node.get_access_mode() == EAccessMode.RW else "RO"), name
    for name, match in limits.items():
        node = nodes.get_node(name)
        expected = [node.min, node.max, *([node.inc] if match[5] else [])]
        assert [float(one) for one in match.groups()[2:] if one] == pytest.approx(expected, rel=1e-5), name
    host.close()


def _features(nodes: Any) -> Iterator[tuple[str, Any]]:
    for category in nodes.Root.features:
        for node in category.features:
            yield node.node.name, node


def _is_command(nodes: Any, name: str) -> bool:
    return nodes.get_node(name).node.principal_interface_type == EInterfaceType.intfICommand


def _equal(text: str, node: Any) -> bool:
    kind = node.node.principal_interface_type
    if kind == EInterfaceType.intfIString or kind == EInterfaceType.intfIEnumeration:
        return text.strip("'") == str(node.value)
    if kind == EInterfaceType.intfIBoolean:
        return (text == "true") == node.value
    return float(text.split(maxsplit=1)[0]) == pytest.approx(float(node.value), rel=1e-5, abs=1e-9)


def arv_stream(*arguments: str) -> dict[str, int]:
    command = ["arv-camera-test-0.8", "--duration=2", *arguments]
    told = subprocess.run(command, capture_output=True, text=True, timeout=40, check=False)
    assert told.returncode == 0, told.stdout + told.stderr
    found = {name: int(count) for name, count in re.findall(r"^(n_\w+)\s+= (\d+)$", told.stdout, re.M)}
    assert found.pop("n_completed_buffers") > 10, told.stdout + told.stderr
    return {name: found[name] for name in ("n_failures", "n_underruns", "n_aborted", "n_ignored_bytes")}


def unhindered_stream(*arguments: str, tries: int = 3) -> dict[str, int]:
    """An underrun says that Aravis gave no buffer in time: it was held up itself. What of its device's faults it told
    then must be none all the same, and it streams again.
    """
    for _ in range(tries):
        told = arv_stream(*arguments)
        if not told["n_underruns"] or told != NO_FAULT | {"n_underruns": told["n_underruns"]}:
            break
    return told


NO_FAULT = {"n_failures": 0, "n_underruns": 0, "n_aborted": 0, "n_ignored_bytes": 0}


# frames of 170 kB at least: Aravis queues 8 MB of its 50 buffers, and counts an underrun each time it finds none left
@needs_aravis
@pytest.mark.parametrize("mode", ["async", "sync"])
@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ({"height_px": 1200, "width_px": 1920, "frame_rate_hz": 40.0}, []),
        (
            {"zip": True, "first_block_id": 1, "alignment_bytes": 4, "height_px": 480, "width_px": 640},
            ["--width=600", "--height=300", "--frequency=50", "--exposure=500"],
        ),
        ({"height_px": 480, "width_px": 640, "source": "pattern"}, ["--software-trigger=25"]),
        ({"alignment_bytes": 4, "height_px": 480, "width_px": 640}, ["--chunks=FrameID,Timestamp,ExposureTime"]),
        ({"automatic": True, "usb2": True, "height_px": 480, "width_px": 640}, []),
    ],
)
def test_aravis_streams_without_a_failed_frame(
    bus: BusClient, plug: Callable[..., Host], mode: str, options: dict[str, Any], arguments: list[str]
) -> None:
    plug(**options).close()
    assert unhindered_stream(f"--usb-mode={mode}", *arguments) == NO_FAULT
    assert not bus.state("camera")["streaming"] and not bus.state("camera")["acquiring"]
    assert "faults of the model" not in bus.state("camera")["counts"]


@needs_aravis
def test_aravis_counts_the_frames_that_are_broken(bus: BusClient, plug: Callable[..., Host]) -> None:
    plug().close()
    bus.inject("camera", "short_frame", times=5)
    assert arv_stream("--usb-mode=async")["n_failures"] >= 1
