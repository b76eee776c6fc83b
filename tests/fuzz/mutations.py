"""Damaged, lengthened, shortened and mixed-up copies of good inputs."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

MOST_BYTES = 1 << 16
ODD_NUMBERS = (
    0, 1, 2, 3, 7, 8, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63,
    2**64 - 1,
)  # fmt: skip
ODD_TEXTS = (
    b"", b"\0", b" ", b"\n", b"\r\n", b",", b";", b":", b'"', b"'", b"[", b"]", b"{", b"}", b"-", b"+", b"-0", b"1e999",
    b"-1e-999", b"nan", b"NaN", b"inf", b"Infinity", b"1" * 400, b"0x10", b"1_000", "٣".encode(), "½".encode(),
    "\u202e".encode(), b"\xff\xfe", b"\xed\xa0\x80", b"null", b"true",
    b"../../etc/passwd", b"%s%n", b"[" * 2000, b"A" * 5000,
)  # fmt: skip
"""Texts that parsers have stumbled over."""


def mutated(seeds: Sequence[bytes], rng: random.Random) -> bytes:
    """One input: a seed as it is, or changed in up to eight places."""
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3, 5, 8))):
        rng.choice(CHANGES)(data, rng, seeds)
    return bytes(data[:MOST_BYTES])


def _place(data: bytearray, rng: random.Random) -> int:
    return rng.randrange(len(data)) if data else 0


def _span(data: bytearray, rng: random.Random) -> slice:
    begin = _place(data, rng)
    return slice(begin, begin + min(rng.choice((1, 1, 2, 4, 8, 16, 64, 512)), len(data) - begin))


def flip_a_bit(data: bytearray, rng: random.Random, _: Sequence[bytes]) -> None:
    if data:
        data[_place(data, rng)] ^= 1 << rng.randrange(8)


def set_a_byte(data: bytearray, rng: random.Random, _: Sequence[bytes]) -> None:
    if data:
        data[_place(data, rng)] = rng.randrange(256)


def set_a_number(data: bytearray, rng: random.Random, _: Sequence[bytes]) -> None:
    size = rng.choice((1, 2, 4, 8))
    number = (rng.choice(ODD_NUMBERS) + rng.choice((-1, 0, 0, 1))) % 2 ** (8 * size)
    begin = _place(data, rng)
    data[begin : begin + size] = number.to_bytes(size, rng.choice(("little", "big")))


def insert_a_text(data: bytearray, rng: random.Random, _: Sequence[bytes]) -> None:
    begin = _place(data, rng)
    data[begin:begin] = rng.choice(ODD_TEXTS)


def replace_by_a_text(data: bytearray, rng: random.Random, _: Sequence[bytes]) -> None:
    data[_span(data, rng)] = rng.choice(ODD_TEXTS)


def leave_out(data: bytearray, rng: random.Random, _: Sequence[bytes]) -> None:
    del data[_span(data, rng)]


def repeat(data: bytearray, rng: random.Random, _: Sequence[bytes]) -> None:
    span = _span(data, rng)
    data[span] = data[span] * rng.choice((2, 3, 17))


def cut_off(data: bytearray, rng: random.Random, _: Sequence[bytes]) -> None:
    del data[_place(data, rng) :]


def swap(data: bytearray, rng: random.Random, _: Sequence[bytes]) -> None:
    one, other = _span(data, rng), _span(data, rng)
    data[one], data[other] = bytes(data[other]), bytes(data[one])


def graft(data: bytearray, rng: random.Random, seeds: Sequence[bytes]) -> None:
    donor = bytearray(rng.choice(seeds))
    data[_place(data, rng) :] = donor[_place(donor, rng) :]


CHANGES: tuple[Callable[[bytearray, random.Random, Sequence[bytes]], None], ...] = (
    flip_a_bit, set_a_byte, set_a_number, insert_a_text, replace_by_a_text, leave_out, repeat, cut_off, swap, graft,
)  # fmt: skip
