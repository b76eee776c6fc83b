"""What happens to an instrument in a field, done to the installed package: cables, a full disk, a kernel that hangs."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from pathlib import Path
from typing import Any

from tests.hil.boot.machine import READY_S, UNIT, InstalledMachine, is_measuring

SETTINGS = Path(__file__).with_name("settings.toml").read_text()
TOKEN = "of the bench, and of nobody else"
USB = """
[camera]
driver = "u3v"
frame_deadline_s = 120
start_timeout_s = 300
gain_e_per_dn = 128
read_noise_e = 7
dark_dn = 4

[potentiostat]
driver = "methodscript"
sample_deadline_s = 60

[cell]
capacity_mah = 0.5

"""
SCENE = {"particles": 12, "height_px": 150, "width_px": 200, "loop_frames": 16, "frame_rate_hz": 4.0}
FILL = """
fallocate -l $(df --output=avail -B1 / | tail -1) /filler
setpriv --reuid photometryd --regid photometryd --clear-groups \\
    dd if=/dev/zero of=/var/lib/photometryd/filler bs=4k || true
test $(df --output=avail / | tail -1) = 0
"""
"""To the last block that the service could have; only root's own are left."""


def part(status: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in status["parts"] if one["name"] == name)
    return found


def test_usb_devices_are_reached_from_inside_the_sandbox_and_found_again(guest: InstalledMachine) -> None:
    guest.plug("camera", "u3v", source="loop", optics=SCENE, frame_rate_hz=4.0, max_frame_rate_hz=4.0)
    guest.plug("potentiostat", "methodscript-cdc")
    guest.eventually("test $(stat -c %G /dev/bus/usb/*/* | grep -c photometryd) = 2")
    guest.settle(re.sub(r"\[camera\].*(?=\[engine\])", USB, SETTINGS, flags=re.DOTALL))
    told = guest.await_status(is_measuring)
    assert guest.show("DevicePolicy") == "closed" and guest.show("ProtectSystem") == "strict"
    assert guest.state("camera")["counts"]["frames sent"] > 0

    guest.unplug("camera")
    told = guest.await_status(lambda now: part(now, "camera")["state"] != "ready")
    assert part(told, "camera")["reason"].startswith("camera.") and part(told, "camera")["remedy"]
    guest.plug("camera")
    guest.await_status(lambda now: part(now, "camera")["state"] == "ready")

    guest.unplug("potentiostat")
    told = guest.await_status(lambda now: now["cell"]["state"] == "lost")
    assert part(told, "cell")["remedy"]
    guest.plug("potentiostat")
    guest.await_status(lambda now: now["cell"]["state"] != "lost")
    assert guest.show("NRestarts") == "0"
    guest.check_store()


def test_a_hanging_kernel_is_reset_by_the_hardware_and_the_instrument_comes_back(guest: InstalledMachine) -> None:
    guest.sh("grep -l i6300 /sys/class/watchdog/*/identity && sync")
    boot = guest.boot_id()
    # a panic that does not reboot: processors stand still, and nobody feeds the watchdog
    guest.start("/bin/sh", "-c", "sleep 1; echo 0 >/proc/sys/kernel/panic; echo c >/proc/sysrq-trigger")
    guest.await_another_boot(boot)
    guest.await_ready()
    guest.await_status(is_measuring)
    assert [run["state"] for run in guest.check_store()] == ["interrupted", "running"]


def test_a_full_disk_ends_the_run_with_a_reason_and_room_lets_the_next_one_start(guest: InstalledMachine) -> None:
    run_id = guest.status()["run"]["run_id"]
    guest.sh(FILL, 600)
    ended = guest.await_status(lambda now: not now["measuring"])
    assert part(ended, "store")["state"] != "ready" and part(ended, "store")["remedy"], ended
    assert guest.show("ActiveState") == "active" and guest.show("NRestarts") == "0"
    guest.sh("rm /filler /var/lib/photometryd/filler; sync")
    guest.await_status(lambda now: part(now, "store")["state"] == "ready")
    guest.sh(f"systemctl restart {UNIT}", READY_S)
    told = guest.await_status(is_measuring)
    assert told["run"]["run_id"] != run_id
    full = guest.check_store("store.disk_full")[0]
    assert (full["run_id"], full["reason"]) == (run_id, "store.disk_full") and full["frames"] > 0
    assert full["state"] in ("done", "failed", "interrupted")


def answers(guest: InstalledMachine, within_s: float) -> bool:
    """Whether the API says through the network cable that it lives."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{guest.port}/api/v1/healthz", timeout=within_s) as answer:
            return bool(json.load(answer) == {"status": "ok"})
    except OSError:
        return False


def test_measuring_goes_on_while_the_network_cable_is_out(guest: InstalledMachine) -> None:
    # as docs/field says of an instrument that serves a network: an address, tokens, and the unit's leave
    opened = f'[api]\nhost = "0.0.0.0"\ntokens = [{{ name = "bench", secret = "{TOKEN}", scopes = ["admin"] }}]'
    drop_in = f"/etc/systemd/system/{UNIT}.d/network.conf"
    guest.sh(f"printf '[Service]\\nIPAddressAllow=10.0.2.0/24\\n' >{drop_in} && systemctl daemon-reload")
    guest.token = TOKEN
    guest.settle(SETTINGS.replace("[api]", opened))
    guest.await_status(is_measuring)
    deadline = time.monotonic() + READY_S
    while not answers(guest, 60.0):
        assert time.monotonic() < deadline
        time.sleep(1)
    guest.network_cable(plugged=False)
    guest.eventually("grep -qx 0 /sys/class/net/e*/carrier")
    before = guest.status()["run"]["frames"]
    assert not answers(guest, 20.0)
    guest.await_status(lambda now: now["measuring"] and now["run"]["frames"] > before)
    guest.network_cable(plugged=True)
    deadline = time.monotonic() + READY_S
    while not answers(guest, 60.0):
        assert time.monotonic() < deadline
        time.sleep(1)
    assert guest.show("NRestarts") == "0"
    guest.check_store()
