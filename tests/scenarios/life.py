"""One start of the daemon: the real instrument in a thread of its own, from settings to stop or kill."""

from __future__ import annotations

import asyncio
import io
import logging
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from daemon.bootstrap import Instrument
from daemon.config import LoadedSettings, Settings
from daemon.diagnostics.logs import LogService
from daemon.errors import InstrumentError
from daemon.service.notify import Notifier
from tests.scenarios.client import Request, send
from tests.scenarios.schedule import SCHEDULE
from tests.scenarios.standins import Thread
from tests.scenarios.turns import Loop

ENDS_S = 120.0  # twice what the daemon tells systemd that its stop may take


class Witness(logging.Handler):
    """Keeps what the daemon logged: lines, and tracebacks, which a healthy daemon never shows."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []
        self.tracebacks: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{SCHEDULE.now_s:.2f} {record.levelname} {record.name}: {record.getMessage()}")
        del self.lines[:-2000]
        if record.exc_info and record.exc_info[1] is not None:
            self.tracebacks.append(self.lines[-1] + "\n" + "".join(traceback.format_exception(record.exc_info[1])))
        elif record.name == "asyncio":
            self.tracebacks.append(self.lines[-1])


class Life:
    """The daemon from start to end. Everything public is for the scenario's own thread, while all others wait."""

    def __init__(self, number: int, settings: Settings) -> None:
        self.number = number
        self.state = "starting"
        """`starting`, `up`, `refused`, `stopping`, `ended`, `killed`."""
        self.began_s = self.changed_s = SCHEDULE.now_s
        self.error: BaseException | None = None
        self.witness = Witness()
        self.left: list[str] = []
        """Tasks that outlived the stop."""
        SCHEDULE.life = number
        self.loop = Loop()
        self.logs = LogService(settings.service.log_level, settings.store.state_dir, stream=io.StringIO(), environ={})
        self.notifier = Notifier({})
        self.instrument = Instrument(LoadedSettings(settings, {}, None), self.logs, self.notifier)
        self._quit = asyncio.Event()
        self._thread = Thread(target=self._live, name=f"daemon-{number}")
        self._thread.start()
        SCHEDULE.life = 0

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self.state in ("starting", "up", "stopping")

    def call(self, function: Callable[..., Any], *arguments: Any) -> None:
        """On the event loop, soon."""
        if self.alive and not self.loop.is_closed():
            self.loop.call_soon_threadsafe(function, *arguments)

    def ask(self, request: Request) -> Request:
        """Send a request; the answer comes as time passes."""
        self.call(send, self.instrument.api, request)
        return request

    def quit(self) -> None:
        """SIGTERM."""
        if self.state in ("starting", "up"):
            self._change("stopping")
            self.call(self._quit.set)

    def kill(self) -> None:
        """SIGKILL."""
        if self.alive:
            self._change("killed")
            SCHEDULE.kill(self.number)
            logging.getLogger().handlers.clear()

    def _change(self, state: str) -> None:
        self.state, self.changed_s = state, SCHEDULE.now_s

    def _live(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.logs.start()
        logging.getLogger().addHandler(self.witness)
        try:
            self.loop.run_until_complete(self._serve())
            self._close()
        except BaseException as error:  # the scenario is told
            self.error = error
        logging.getLogger().removeHandler(self.witness)
        self.logs.stop()
        self._change("refused" if isinstance(self.error, InstrumentError) else "ended")

    async def _serve(self) -> None:
        """As `daemon.__main__` does it."""
        starting = asyncio.create_task(self.instrument.start(), name="start")
        stopping = asyncio.create_task(self._quit.wait(), name="stop-signal")
        await asyncio.wait([starting, stopping], return_when=asyncio.FIRST_COMPLETED)
        try:
            if starting.done():
                starting.result()
                if self.state == "starting":
                    self._change("up")
                await stopping
            else:
                starting.cancel()
                await asyncio.gather(starting, return_exceptions=True)
        except InstrumentError as error:
            self.error = error
        finally:
            stopping.cancel()
            await self.instrument.stop()
            self.notifier.close()

    def _close(self) -> None:
        """As `asyncio.run` does it, but what is left behind is noted."""
        left = [task for task in asyncio.all_tasks(self.loop) if "athrow" not in type(task.get_coro()).__name__]
        self.left = [task.get_name() for task in left]
        for task in left:
            task.cancel()
        self.loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()


def state_of(folder: Path) -> Path:
    """The state directory below a scenario's folder."""
    return folder / "state"
