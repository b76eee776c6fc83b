"""Everything the client of the API does, told line by line: runs on CPython and MicroPython.

Arguments: folder of the module, the API's port, a hostile server's port, a port where nothing listens, the token.
"""

import asyncio
import os
import sys

sys.path.insert(0, sys.argv[1])

from instrument import Instrument, Refused, Unreachable

API, HOSTILE, NOBODY = [int(port) for port in sys.argv[2:5]]
TOKEN = sys.argv[5]


async def outcome(work):
    try:
        answer = await work
    except Refused as error:
        return f"refused {error.status} {error.code}: {error.detail} {error.remedy != ''}"
    except Unreachable as error:
        return "unreachable " + error.reason
    return f"answered {sorted(answer)}"


async def requests(instrument):
    status = await instrument.get("/status")
    print("status", status["state"], status["measuring"], status["cell"]["state"])
    print("query", (await instrument.get("/runs", {"limit": 3}))["runs"])
    print("unknown", await outcome(instrument.get("/runs/ä b")))
    print("bad query", await outcome(instrument.get("/runs", {"limit": "-1"})))
    off = await instrument.cell_off()
    print("off", off["state"])
    operation = await instrument.send("POST", "/selftest", {})
    print("selftest", sorted(await instrument.finish(operation, 20.0)))
    two = await asyncio.gather(instrument.get("/version"), instrument.get("/healthz"))
    print("two at once", two[0]["api"], two[1]["status"])
    print("anonymous", await outcome(Instrument(port=API).get("/status")))


async def feed(instrument):
    async with instrument.events(after=1, follow=False) as events:
        async for event in events:
            print("event", event["seq"], event["kind"], event["detail"])
        print("last", events.last_seq)
    seen = 0
    async with instrument.events(after=2) as events:
        async for event in events:
            seen += 1
            print("followed", event["seq"])
            if seen == 2:
                break


async def hostile():
    instrument = Instrument(port=HOSTILE, deadline_s=0.3)
    for path in (
        "/stall",
        "/cut",
        "/garbage",
        "/binary",
        "/notjson",
        "/list",
        "/flood",
        "/long",
        "/endless",
        "/length",
        "/hangup",
        "/reset",
    ):
        print(path, await outcome(instrument.get(path)))
    print("nobody", await outcome(Instrument(port=NOBODY, deadline_s=0.3).get("/status")))
    print("teapot", await outcome(instrument.get("/teapot")))


async def silent_feed():
    instrument = Instrument(port=HOSTILE, deadline_s=0.3)
    async with instrument.events(silence_s=0.2) as events:  # cut after each event, then silent
        seen = []
        async for event in events:
            seen.append(event["seq"])
            if len(seen) == 3:
                break
        print("resumed", seen)
    try:
        async with Instrument(port=NOBODY, deadline_s=0.3).events() as events:
            async for event in events:
                print("never", event)
    except Unreachable as error:
        print("no feed", error.reason)


async def main():
    instrument = Instrument(port=API, token=TOKEN)
    await requests(instrument)
    await feed(instrument)
    await hostile()
    await silent_feed()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        await outcome(Instrument(port=HOSTILE, deadline_s=0.02).get("/stall"))
    await asyncio.sleep(0.1)
    print("descriptors left", len(os.listdir("/proc/self/fd")) - before)


asyncio.run(main())
