"""Everything a line device does, told line by line: runs on CPython and MicroPython. Argument: folder of the module."""

import asyncio
import sys

sys.path.insert(0, sys.argv[1])

from lines import DeviceError, LineDevice, ScpiDevice

PORT = int(sys.argv[2])
measured = asyncio.Event()


async def meter(reader, writer):
    """A meter with moods."""
    errors = []
    while True:
        line = (await reader.readline()).strip()
        if not line or line == b"BYE":
            break
        if line == b"SLOW?":
            await asyncio.sleep(0.3)
            answer = b"late"
        elif line == b"MEASURE?":
            await measured.wait()
            answer = b"measured"
        elif line == b"TYPO?":
            continue
        elif line == b"*IDN?":
            answer = b"MAKER, MODEL 1,0007, 1.0"
        elif line == b"SYST:ERR?":
            answer = errors.pop(0) if errors else b'+0,"No error"'
        elif line == b"LONG?":
            answer = b"x" * 5000
        elif line == b"BABBLE?":
            await asyncio.sleep(0.2)
            writer.write(b"noise\n" * 100)
            answer = b"noise"
        elif line == b"CUT?":
            writer.write(b"half a li")
            await writer.drain()
            break
        elif line.endswith(b"?"):
            answer = b"re: " + line
        else:
            errors += [b'-113,"Undefined header"', b'-410,"Query INTERRUPTED"'] if line == b"WRONG" else []
            continue
        writer.write(answer + b"\r\n")
        await writer.drain()
    writer.close()
    await writer.wait_closed()


async def told(work):
    try:
        return await work
    except DeviceError as error:
        return f"{error.reason}: {error.detail}"


async def main():
    server = await asyncio.start_server(meter, "127.0.0.1", PORT)
    device = ScpiDevice(*await asyncio.open_connection("127.0.0.1", PORT))
    print(await device.identity())
    print(await told(device.ask(b"VOLT?")))
    print(await told(device.ask(b"SLOW?", 0.1)))
    await asyncio.sleep(0.4)
    print(await told(device.ask(b"CURR?")), device.late_lines)
    print(await told(device.ask(b"MEASURE?", 0.1)))
    print(await told(device.ask(b"VOLT?", 0.1)))
    measured.set()
    for question in (b"VOLT?", b"CURR?"):
        print(await told(device.ask(question, 2.0)), device.late_lines)
    device.lost_s = 0.2
    print(await told(device.ask(b"TYPO?", 0.1)))
    for _ in range(2):
        print(await told(device.ask(b"VOLT?", 0.1)))
    device.late_lines = 1
    print(await asyncio.gather(device.ask(b"A?"), device.ask(b"B?")))
    print(await told(device.command(b"OUTP OFF")))
    print(await told(device.command(b"WRONG")))
    print(await told(device.ask(b"LONG?")))
    print(await told(device.ask(b"BABBLE?", 0.1)))
    await asyncio.sleep(0.3)
    for _ in range(2):
        print(await told(device.ask(b"AFTER?")), device.late_lines)
    print(await told(device.ask(b"CUT?")))
    await device.close()
    await device.close()
    print(await told(device.ask(b"VOLT?")))
    silent = LineDevice(*await asyncio.open_connection("127.0.0.1", PORT), deadline_s=0.05)
    print(await told(silent.ask(b"nothing asked")))
    await silent.close()
    await asyncio.sleep(0.1)  # its end of the line has closed too
    server.close()
    await server.wait_closed()


asyncio.run(main())
