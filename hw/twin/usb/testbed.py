"""The part of /sys and /dev that programs under umockdev's preload library see instead of the machine's own.

A directory: `sys/` with the devices, `dev/` with their nodes, `ioctl/` with a socket for each node, `event<N>` sockets
by which programs hear of devices that come and go. Its layout is the preload library's, unchanged since umockdev 0.16.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hw.twin.usb.device import UsbModel

CONTROLLER = "devices/pci0000:00/0000:00:14.0"
USBFS_MEMORY = "module/usbcore/parameters/usbfs_memory_mb"
REAL = ("devices/system", "fs", "kernel", "class/net", "class/thermal", "class/hwmon", "class/block")
"""Parts of the machine's own /sys that stay visible: processors, memory groups, interfaces."""
MONITOR_MAGIC = 0xFEEDCAFE


@dataclass(frozen=True)
class Place:
    """Where a device is plugged in."""

    bus: int
    address: int
    port: int

    @property
    def node(self) -> str:
        """Path of the device file."""
        return f"/dev/bus/usb/{self.bus:03}/{self.address:03}"

    @property
    def name(self) -> str:
        """Name in sysfs: bus and port."""
        return f"{self.bus}-{self.port}"


class Node:
    """A device's file: programs that poll it wake when it is `ready`, as with usbfs when a transfer is finished.

    A named pipe of one page: full, nobody can write to it, which is what those who wait for a transfer ask for.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(path, 0o666)
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.fcntl(self._fd, fcntl.F_SETPIPE_SZ, os.sysconf("SC_PAGE_SIZE"))
        self._ready = True
        self.set_ready(False)

    def set_ready(self, ready: bool) -> None:
        """Whether there is something to fetch."""
        if ready != self._ready:
            self._ready = ready
            if ready:
                os.read(self._fd, 1)
            else:
                os.write(self._fd, b"x")

    def close(self) -> None:
        """Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Testbed:
    """Made when constructed, gone after `close`."""

    __test__ = False  # pytest takes it for a test otherwise

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="usb."))
        self._heard = self.root / "heard"
        self._events = 0
        for name in ("sys/bus/usb/devices", "sys/class", "ioctl", "heard", f"sys/{CONTROLLER}"):
            (self.root / name).mkdir(parents=True)
        for name in REAL:
            if (Path("/sys") / name).exists():
                link = self.root / "sys" / name
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(Path("/sys") / name)

    def set_usbfs_memory_mb(self, memory_mb: int) -> None:
        """What the kernel's parameter says."""
        self._write(self.root / "sys" / USBFS_MEMORY, f"{memory_mb}\n")

    # -- devices ------------------------------------------------------------

    def listen(self, place: Place) -> socket.socket:
        """The socket to which programs connect that open the device's file."""
        return self._listen(self.root / f"ioctl{place.node}")

    def listen_for_others(self) -> socket.socket:
        """The socket to which programs connect that open any other file of /dev; without it they lose descriptors."""
        return self._listen(self.root / "ioctl/_default")

    @staticmethod
    def _listen(path: Path) -> socket.socket:
        path.parent.mkdir(parents=True, exist_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(path))
        listener.listen(16)
        return listener

    def add(self, place: Place, model: UsbModel) -> Node:
        """Make file and sysfs entry and tell everybody. `listen` must have come before: an open file needs it."""
        node = Node(self.root / place.node[1:])
        folder = self._folder(place)
        device, strings = model.device_descriptor(), model.strings()
        usb, vendor_id, product_id, release = (int.from_bytes(device[at : at + 2], "little") for at in (2, 8, 10, 12))
        attributes = {
            "busnum": str(place.bus),
            "devnum": str(place.address),
            "devpath": str(place.port),
            "bConfigurationValue": "1",
            "speed": str(model.speed_mbps),
            "version": f"{usb >> 8:2x}.{usb & 0xFF:02x}",
            "idVendor": f"{vendor_id:04x}",
            "idProduct": f"{product_id:04x}",
            "bcdDevice": f"{release:04x}",
            "bDeviceClass": f"{device[4]:02x}",
            "bDeviceSubClass": f"{device[5]:02x}",
            "bDeviceProtocol": f"{device[6]:02x}",
        }
        for name, at in (("manufacturer", 14), ("product", 15), ("serial", 16)):
            if device[at] in strings:
                attributes[name] = strings[device[at]]
        for name, value in attributes.items():
            self._write(folder / name, f"{value}\n")
        self._write(folder / "descriptors", device + model.configuration())
        properties = self._properties(place, f"{vendor_id:x}/{product_id:x}/{release:x}")
        self._write(folder / "uevent", "".join(f"{name}={value}\n" for name, value in properties.items()))
        for link, target in (
            (folder / "subsystem", self.root / "sys/bus/usb"),
            (self.root / "sys/bus/usb/devices" / place.name, folder),
        ):
            link.symlink_to(os.path.relpath(target, link.parent))  # absolute, it would leave what programs see as /sys
        self._tell("add", place, properties)
        return node

    def remove(self, place: Place) -> None:
        """The file, the sysfs entry, and the news of it. Files that are open stay open."""
        folder = self._folder(place)
        (self.root / "sys/bus/usb/devices" / place.name).unlink()
        shutil.rmtree(folder)
        for path in (self.root / place.node[1:], self.root / f"ioctl{place.node}"):
            path.unlink()
        self._tell("remove", place, self._properties(place, ""))

    def _folder(self, place: Place) -> Path:
        return self.root / "sys" / CONTROLLER / f"usb{place.bus}" / place.name

    @staticmethod
    def _properties(place: Place, product: str) -> dict[str, str]:
        return {
            "MAJOR": "189",
            "MINOR": str((place.bus - 1) * 128 + place.address - 1),
            "DEVNAME": place.node,
            "DEVTYPE": "usb_device",
            "DRIVER": "usb",
            "PRODUCT": product,
            "BUSNUM": f"{place.bus:03}",
            "DEVNUM": f"{place.address:03}",
        }

    @staticmethod
    def _write(path: Path, value: str | bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(value.encode() if isinstance(value, str) else value)

    # -- news ------------------------------------------------------------

    def adopt_listeners(self) -> None:
        """Keep a name of our own for each socket that listens for news.

        The preload library names them by file number, so the next program with the same number takes a name over.
        """
        for path in self.root.glob("event[0-9]*"):
            try:
                own = self._heard / str(path.stat().st_ino)
                if not own.exists():
                    os.link(path, own)
            except FileNotFoundError:
                continue  # its program has just ended

    def _tell(self, action: str, place: Place, properties: dict[str, str]) -> None:
        self.adopt_listeners()
        self._events += 1
        path = f"/{CONTROLLER}/usb{place.bus}/{place.name}"
        head = {"ACTION": action, "DEVPATH": path, "SUBSYSTEM": "usb", "SEQNUM": str(self._events)}
        body = b"".join(f"{name}={value}\0".encode() for name, value in (head | properties).items())
        message = _monitor_header(len(body), "usb", "usb_device") + body
        for listener in self._heard.iterdir():
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
                try:
                    sender.sendto(message, str(listener))
                except ConnectionRefusedError:
                    listener.unlink()
                except BlockingIOError:
                    continue  # it does not listen any more and never closed its socket

    def close(self) -> None:
        """Remove it all; idempotent."""
        shutil.rmtree(self.root, ignore_errors=True)


def _monitor_header(body_bytes: int, subsystem: str, kind: str) -> bytes:
    """What libudev expects before the properties (systemd, `device-monitor.c`): hashes that its socket filter reads."""
    size = 40
    hashes = struct.pack(">II", _murmur2(subsystem.encode()), _murmur2(kind.encode()))
    return (
        b"libudev\0"
        + struct.pack(">I", MONITOR_MAGIC)
        + struct.pack("<III", size, size, body_bytes)
        + hashes
        + bytes(8)
    )


def _murmur2(data: bytes) -> int:
    """MurmurHash2 with seed 0, 32 bits (A. Appleby, public domain)."""
    factor, word = 0x5BD1E995, 0xFFFFFFFF
    value = len(data)
    whole = len(data) // 4 * 4
    for (part,) in struct.iter_unpack("<I", data[:whole]):
        mixed = part * factor & word
        mixed = (mixed ^ mixed >> 24) * factor & word
        value = (value * factor & word) ^ mixed
    if rest := data[whole:]:
        value = (value ^ int.from_bytes(rest, "little")) * factor & word
    value = (value ^ value >> 13) * factor & word
    return value ^ value >> 15
