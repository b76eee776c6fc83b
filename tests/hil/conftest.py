"""Tests under an emulated USB bus: `make hil`, or `python -m hw.twin.usb -- python -m pytest tests/hil`."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hw.twin.usb.bus import VARIABLE
from hw.twin.usb.client import BusClient
from hw.twin.usb.umockdev import reason_against
from tests.hil.emulated import HEIGHT, WIDTH
from tests.hil.gencp import Host


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without a bus all tests of this folder are skipped."""
    if VARIABLE not in os.environ:
        reason = reason_against() or "needs an emulated bus: python -m hw.twin.usb -- python -m pytest tests/hil"
        for item in items:
            if Path(__file__).parent == item.path.parent:  # those in a guest take no bus
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def _client() -> Iterator[BusClient]:
    client = BusClient()
    yield client
    client.close()


@pytest.fixture(scope="session")
def _libusb(_client: BusClient) -> None:
    """pyusb keeps one libusb context for the life of the process: its descriptors and thread are no leak of a test."""
    import usb.core

    list(usb.core.find(find_all=True) or [])


@pytest.fixture(autouse=True)
def bus(_client: BusClient, _libusb: None) -> Iterator[BusClient]:
    """The bus, empty; emptied again after the test."""
    _client.clear()
    yield _client
    gc.collect()  # pyusb closes a device when it is forgotten
    _client.clear()


@pytest.fixture
def plug(bus: BusClient) -> Iterator[Callable[..., Host]]:
    """Plugs a small camera in and opens it."""
    hosts: list[Host] = []

    def open_camera(**options: Any) -> Host:
        given = {"height_px": HEIGHT, "width_px": WIDTH, "max_transfer_bytes": 16384}  # fewer round trips
        bus.plug("camera", "u3v", **given | options)
        hosts.append(Host())
        return hosts[-1]

    yield open_camera
    for host in hosts:
        host.close()


@pytest.fixture
def stream(plug: Callable[..., Host]) -> Callable[..., tuple[Host, Any]]:
    """Opens a camera, sets features, starts it."""

    def start(features: dict[str, Any] | None = None, transfer: int = 1 << 20, **options: Any) -> tuple[Host, Any]:
        host = plug(**options)
        nodes = host.nodes()
        for name, value in (features or {}).items():
            nodes.get_node(name).value = value
        host.enable(transfer)
        nodes.AcquisitionStart.execute()
        return host, nodes

    return start
