from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from daemon.ctl.app import cli
from tests.daemon.ctl.fake_daemon import FakeDaemon

Ctl = Callable[..., Result]


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeDaemon]:
    with FakeDaemon(tmp_path) as one:
        yield one


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Ctl:
    """Run photometryctl; the result has `exit_code`, `stdout`, `stderr`."""
    for name in ("URL", "SOCKET", "TOKEN"):
        monkeypatch.delenv(f"PHOTOMETRYCTL_{name}", raising=False)
    return lambda *arguments, **options: CliRunner().invoke(cli, [str(a) for a in arguments], **options)


@pytest.fixture
def ctl(fake: FakeDaemon, run: Ctl) -> Ctl:
    """The same, talking to the fake daemon."""
    return lambda *arguments, **options: run("--url", fake.url, *arguments, **options)
