"""The trigger model of an emulated source-measure unit: numbered blocks that run by themselves once started."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

MOST_BLOCKS = 63
MOST_STEPS = 100_000
"""Blocks without a wait that may follow each other: a loop without a delay is an error, not a hang."""
LEAST_WAIT_S = 1e-4
"""Shorter waits take this long."""
LOOK_S = 0.1
"""How often the instrument looks at the state that it tells."""


class Machine(Protocol):
    """What blocks act on."""

    def measure(self) -> float:
        """A reading into the buffer: its value."""

    def output(self, on: bool) -> None:
        """Switch the output."""

    def clear(self) -> None:
        """Empty the buffer."""


Action = Callable[[Machine, "TriggerModel"], tuple[int, float]]
"""What a block does: the number of the next one, and how long it takes (s)."""


@dataclass(frozen=True)
class Block:
    """One block, and how TRIGger:BLOCk:LIST? tells it."""

    text: str
    act: Action


class TriggerModel:
    """Blocks, and where it stands. `state` is IDLE, RUNNING, ABORTED or FAILED."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.blocks: dict[int, Block] = {}
        self.counts: dict[int, int] = {}
        self.state = self._before = "IDLE"
        self._changed_s = float("-inf")
        self.measuring = False
        """A measurement is under way; its reading comes with its end."""
        self.at = 0
        self.last_reading = 0.0
        self._due_s = 0.0

    def load_empty(self) -> None:
        """Forget all blocks."""
        self.blocks.clear()
        self.state = "IDLE"

    def put(self, number: int, block: Block) -> None:
        """Set a block; those before it must be set."""
        self.blocks[number] = block

    def start(self, now_s: float) -> None:
        """INITiate."""
        self._become("RUNNING", now_s)
        self.at, self._due_s, self.measuring = 1, now_s, False
        self.counts.clear()

    def abort(self, now_s: float) -> None:
        """Stop where it stands; the output stays as it is."""
        if self.state == "RUNNING":
            self._become("ABORTED", now_s)

    def _become(self, state: str, now_s: float) -> None:
        self.state, self._before, self._changed_s = state, self.state, now_s

    def seen_state(self, now_s: float) -> str:
        """As the instrument tells it: it may be a look old."""
        return self.state if now_s - self._changed_s >= LOOK_S else self._before

    @property
    def next_s(self) -> float | None:
        """When the next block is due; None when it does not run."""
        return self._due_s if self.state == "RUNNING" else None

    def run(self, until_s: float) -> None:
        """Do what is due."""
        for _ in range(MOST_STEPS):
            if self.state != "RUNNING" or self._due_s > until_s:
                return
            block = self.blocks.get(self.at)
            if block is None:
                self._become("IDLE", self._due_s)
                return
            self.at, took_s = block.act(self._machine, self)
            self._due_s += max(took_s, LEAST_WAIT_S) if took_s else 0.0
        self._become("FAILED", until_s)


def clear_buffer(number: int) -> Block:
    """BUFFer:CLEar."""

    def act(machine: Machine, model: TriggerModel) -> tuple[int, float]:
        machine.clear()
        return number + 1, 0.0

    return Block("BUFFER_CLEAR BUFFER: defbuffer1", act)


def source_state(number: int, *, on: bool) -> Block:
    """SOURce:STATe."""

    def act(machine: Machine, model: TriggerModel) -> tuple[int, float]:
        machine.output(on)
        return number + 1, 0.0

    return Block(f"SOURCE_OUTPUT STATE: {'ON' if on else 'OFF'}", act)


def delay(number: int, delay_s: float) -> Block:
    """DELay:CONStant."""
    return Block(f"DELAY_CONSTANT DELAY: {delay_s:.9f}", lambda machine, model: (number + 1, delay_s))


def measure(number: int, takes_s: Callable[[], float]) -> Block:
    """MEASure: one reading."""

    def act(machine: Machine, model: TriggerModel) -> tuple[int, float]:
        if not model.measuring:
            model.measuring = True
            return number, takes_s()
        model.measuring = False
        model.last_reading = machine.measure()
        return number + 1, 0.0

    return Block("MEASURE BUFFER: defbuffer1 COUNT: 1", act)


def branch_limit(number: int, kind: str, low: float, high: float, to: int) -> Block:
    """BRANch:LIMit:CONStant: INside, OUTside, ABOVe or BELow of the last reading."""
    holds = {
        "INside": lambda value: low <= value <= high,
        "OUTside": lambda value: not low <= value <= high,
        "ABOVe": lambda value: value > high,
        "BELow": lambda value: value < low,
    }[kind]
    text = f"BRANCH_ON_LIMIT TYPE: {kind.upper()} LOW: {low:.6e} HIGH: {high:.6e} BLOCK: {to}"
    return Block(text, lambda machine, model: (to if holds(model.last_reading) else number + 1, 0.0))


def branch_counter(number: int, most: int, to: int) -> Block:
    """BRANch:COUNter: back to `to` until it came here `most` times."""

    def act(machine: Machine, model: TriggerModel) -> tuple[int, float]:
        model.counts[number] = model.counts.get(number, 0) + 1
        if model.counts[number] < most:
            return to, 0.0
        model.counts[number] = 0
        return number + 1, 0.0

    return Block(f"BRANCH_COUNTER VALUE: {most} BLOCK: {to}", act)


def branch_always(to: int) -> Block:
    """BRANch:ALWays."""
    return Block(f"BRANCH_ALWAYS BLOCK: {to}", lambda machine, model: (to, 0.0))
