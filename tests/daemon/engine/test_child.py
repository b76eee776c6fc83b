import asyncio
import time

import numpy as np
import pytest

from daemon.engine.child import ask, end, spawn
from daemon.engine.link import Message, read_message
from daemon.errors import EngineError, EngineReason

FAKE = "tests.daemon.engine.fake_engine"


@pytest.fixture
def behave(monkeypatch):
    return lambda kind: monkeypatch.setenv("FAKE_ENGINE", kind)


async def test_an_order_is_answered(behave):
    behave("echo")
    answer = await ask(FAKE, Message("order", {"n": 1}, {"v": np.arange(400_000.0)}), 20.0)
    assert answer.fields == {"n": 1}
    np.testing.assert_array_equal(answer.arrays["v"], np.arange(400_000.0))


async def test_a_child_that_never_answers_is_given_up_and_ended(behave):
    behave("deaf")
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        await ask(FAKE, Message("order"), 0.3)
    assert time.monotonic() - began < 5.0  # that it was ended and waited for, the harness checks


@pytest.mark.parametrize("kind, how", [("dies", "exit status 3"), ("killed", "killed by signal 9")])
async def test_a_child_that_dies_says_how(behave, kind, how):
    behave(kind)
    big = Message("order", {}, {"v": np.zeros(4_000_000)})  # more than the socket holds: it dies while being told
    with pytest.raises(ChildProcessError, match=how):
        await ask(FAKE, big, 20.0)


async def test_a_module_that_does_not_exist_is_no_answer(capfd):
    with pytest.raises(ChildProcessError, match="exit status 1"):
        await ask("tests.daemon.engine.no_such_module", Message("order"), 20.0)
    assert "no_such_module" in capfd.readouterr().err


async def test_garbage_is_a_protocol_error(behave):
    behave("garbage")
    with pytest.raises(EngineError) as caught:
        await ask(FAKE, Message("order"), 20.0)
    assert caught.value.reason is EngineReason.PROTOCOL


async def test_a_child_runs_one_thread_a_library_in_our_environment(behave, monkeypatch):
    behave("environ")
    monkeypatch.setenv("OMP_NUM_THREADS", "16")
    monkeypatch.setenv("OUR_OWN", "kept")
    answer = await ask(FAKE, Message("order"), 20.0)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
        assert answer.fields[name] == "1"
    assert answer.fields["OUR_OWN"] == "kept"


async def test_the_end_is_polite_first_and_then_certain(behave):
    behave("echo")
    process, reader, writer = await spawn(FAKE)
    for buffer in Message("order").encode():
        writer.write(buffer)
    assert (await read_message(reader)).kind == "echo"
    await end(process, writer, 10.0)
    assert process.returncode == 0  # it saw the link close
    behave("deaf")
    process, _, writer = await spawn(FAKE)
    await end(process, writer, 0.1)
    assert process.returncode == -9


@pytest.mark.parametrize("turns", range(8))
async def test_a_start_that_is_cancelled_leaves_no_process(behave, turns):
    behave("deaf")
    start = asyncio.create_task(spawn(FAKE))
    for _ in range(turns):
        await asyncio.sleep(0)
    start.cancel()
    started = (await asyncio.gather(start, return_exceptions=True))[0]
    if not isinstance(started, BaseException):  # it was there already
        await end(started[0], started[2], 0.0)


async def test_an_end_that_is_cancelled_is_still_an_end(behave):
    behave("deaf")
    process, _, writer = await spawn(FAKE)
    ending = asyncio.create_task(end(process, writer, 60.0))
    await asyncio.sleep(0.05)
    ending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ending
    assert process.returncode == -9
