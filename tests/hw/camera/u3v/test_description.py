import hashlib
import io
import zipfile

import pytest

from hw.camera.u3v import description
from hw.camera.u3v.description import ENTRY, PLAIN, ZIP, chosen, read_description, read_manifest, unpacked
from hw.camera.u3v.registers import Bootstrap
from hw.errors import UsbError

TEXT = "<RegisterDescription/>"


class Port:
    """Registers without a camera."""

    def __init__(self, *files, hashed=True):
        self.memory, self.reads = bytearray(0x10000), 0
        self.memory[0:8] = len(files).to_bytes(8, "little")
        place = 0x2000
        for k, (version, kind, storage, data) in enumerate(files):
            sha1 = hashlib.sha1(data).digest() if hashed else bytes(20)
            major, minor, sub = version
            self.memory[8 + 64 * k : 8 + 64 * k + ENTRY.size] = ENTRY.pack(
                sub, minor, major, kind | storage << 10, place, len(data), sha1
            )
            self.memory[place : place + len(data)] = data
            place += 0x2000

    def read(self, address, count):
        self.reads += count
        return bytes(self.memory[address : address + count])

    def read_u64(self, address):
        return int.from_bytes(self.read(address, 8), "little")


def bootstrap(version="1"):
    return Bootstrap("m", "o", version, "s", "", 0.1, 0, 1, 64, 64, 5000.0, 1)


def zipped(text=TEXT, name="camera.xml"):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(name, text)
    return out.getvalue()


def test_the_newest_description_of_the_device_is_chosen():
    port = Port(((1, 0, 0), 0, PLAIN, b"old"), ((1, 2, 0), 0, PLAIN, b"new"), ((9, 0, 0), 1, PLAIN, b"of buffers"))
    entry = chosen(read_manifest(port, 0))
    assert entry.version == (1, 2, 0) and port.read(entry.address, entry.size) == b"new"


@pytest.mark.parametrize(
    "storage, data", [(PLAIN, TEXT.encode()), (PLAIN, b"\xef\xbb\xbf" + TEXT.encode() + b"\0\0"), (ZIP, zipped())]
)
def test_plain_and_zipped_files_give_the_text(storage, data, tmp_path):
    assert read_description(Port(((1, 0, 0), 0, storage, data)), bootstrap(), tmp_path) == TEXT


@pytest.mark.parametrize("hashed", [True, False])
def test_it_is_read_from_the_camera_once(tmp_path, hashed):
    port = Port(((1, 0, 0), 0, PLAIN, TEXT.encode()), hashed=hashed)
    read_description(port, bootstrap(), tmp_path)
    before = port.reads
    assert read_description(port, bootstrap(), tmp_path) == TEXT
    assert port.reads - before == 8 + 64  # the manifest only
    if not hashed:
        read_description(port, bootstrap("2"), tmp_path)  # another firmware
        assert len(list(tmp_path.iterdir())) == 2


def test_a_damaged_or_missing_cache_costs_time_only(tmp_path):
    port = Port(((1, 0, 0), 0, PLAIN, TEXT.encode()))
    read_description(port, bootstrap(), tmp_path)
    (place,) = tmp_path.iterdir()
    place.write_bytes(b"x" * len(TEXT))
    assert read_description(port, bootstrap(), tmp_path) == TEXT
    assert place.read_bytes() == TEXT.encode()
    blocked = tmp_path / "file"
    blocked.touch()
    assert read_description(port, bootstrap(), blocked / "below") == TEXT
    assert read_description(port, bootstrap(), None) == TEXT


def test_a_file_that_is_not_what_the_camera_says_is_refused(tmp_path):
    port = Port(((1, 0, 0), 0, PLAIN, TEXT.encode()))
    port.memory[0x2000] = 0
    with pytest.raises(UsbError, match="differs from its checksum"):
        read_description(port, bootstrap(), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("port", [Port(), Port(((1, 0, 0), 1, PLAIN, b"x")), Port(((1, 0, 0), 0, 5, b"x"))])
def test_no_description_is_a_sentence(port):
    with pytest.raises(UsbError, match=r"manifest has 0|no description"):
        read_description(port, bootstrap(), None)


@pytest.mark.parametrize(
    "stored", [b"no archive", zipped(name="readme.txt"), zipped()[:60]], ids=["none", "no description", "cut short"]
)
def test_a_broken_archive_is_a_sentence(stored):
    with pytest.raises(UsbError, match="description"):
        unpacked(stored, ZIP)


def test_bombs_are_not_unpacked(monkeypatch):
    monkeypatch.setattr(description, "MOST_XML_BYTES", 100)
    with pytest.raises(UsbError, match="no archive of one XML file"):
        unpacked(zipped("x" * 101), ZIP)
    with pytest.raises(UsbError, match="entities"):
        unpacked(b'<!DOCTYPE a [<!ENTITY b "c">]><a/>', PLAIN)


def test_the_cache_is_the_services_or_the_users(monkeypatch, tmp_path):
    monkeypatch.setenv("CACHE_DIRECTORY", "/var/cache/photometryd:/other")
    assert str(description.cache_directory()) == "/var/cache/photometryd/u3v"
    monkeypatch.delenv("CACHE_DIRECTORY")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert description.cache_directory() == tmp_path / "photometryd/u3v"
