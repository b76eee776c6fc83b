"""The kernel's memory for USB transfers: how much there is, and what fits."""

from __future__ import annotations

from pathlib import Path

LIMIT = Path("/sys/module/usbcore/parameters/usbfs_memory_mb")
OTHERS_BYTES = 2 << 20  # other devices and their transfers share it
TRANSFER_BYTES = 1024  # bookkeeping of the kernel for one transfer, rounded up
LEAST_FRAMES = 2  # one that is filled and one behind it


def memory_limit_mb() -> int | None:
    """`usbcore.usbfs_memory_mb`, shared by all programs; 0 is no limit, None where it cannot be read."""
    try:
        return int(LIMIT.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def frames_that_fit(wanted: int, frame_bytes: int, transfers: int, limit_mb: int | None) -> int:
    """How many frames of `transfers` transfers may be in flight, of those wanted; `LEAST_FRAMES` are tried always."""
    if not limit_mb:
        return wanted
    room = (limit_mb << 20) - OTHERS_BYTES
    return max(min(wanted, LEAST_FRAMES), min(wanted, room // (frame_bytes + transfers * TRANSFER_BYTES)))


def advice(wanted: int, frames: int, frame_bytes: int, frame_rate_hz: float, limit_mb: int | None) -> str | None:
    """A sentence for whoever sets the machine up; None when all that is wanted fits."""
    if frames >= wanted:
        return None
    need_mb = -(-(wanted * frame_bytes + OTHERS_BYTES) // (1 << 20))
    slack_ms = 1000 * frames / frame_rate_hz
    return (
        f"usbcore.usbfs_memory_mb = {limit_mb} holds {frames} of {wanted} frames, {slack_ms:.0f} ms: set it to"
        f" {need_mb} or more on the kernel's command line"
    )
