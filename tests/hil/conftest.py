"""Tests under an emulated USB bus: `make hil`, or `python -m hw.twin.usb -- python -m pytest tests/hil`."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hw.twin.usb.bus import VARIABLE
from hw.twin.usb.client import BusClient
from hw.twin.usb.umockdev import reason_against


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
