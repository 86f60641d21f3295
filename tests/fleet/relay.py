"""A relay that holds packets back: `python -m tests.fleet.relay SECONDS`, on a host through which they are routed.

What comes in by the wire goes into a device of ours, waits in this process, and comes out of the device again, from
where the kernel sends it on. So connections that exist already become slow, too, and nothing on either side knows.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
import subprocess
import sys
from pathlib import Path

_SET_DEVICE = 0x400454CA
_TUN_WITHOUT_HEAD = 0x1001
_DEVICE = "late"
_TABLE = "77"
_LARGEST = 65535


def device() -> int:
    """The device, with the routes that lead through it."""
    opened = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(opened, _SET_DEVICE, struct.pack("16sH", _DEVICE.encode(), _TUN_WITHOUT_HEAD))
    settings = Path("/proc/sys/net/ipv4")
    (settings / "ip_forward").write_text("1")
    for name in ("all", "default", _DEVICE, "eth0"):
        # Packets come in by one device and their answers by none, and nobody should be told of the shorter way.
        (settings / "conf" / name / "rp_filter").write_text("0")
        (settings / "conf" / name / "send_redirects").write_text("0")
    for words in (
        ["link", "set", _DEVICE, "up"],
        ["route", "add", "default", "dev", _DEVICE, "table", _TABLE],
        ["rule", "add", "iif", "eth0", "table", _TABLE],
    ):
        subprocess.run(["ip", *words], check=True)
    return opened


async def hold_back(opened: int, seconds: float) -> None:
    """Give every packet back after so many seconds."""
    loop = asyncio.get_running_loop()

    def ready() -> None:
        while True:
            try:
                packet = os.read(opened, _LARGEST)
            except BlockingIOError:
                return
            loop.call_later(seconds, os.write, opened, packet)

    loop.add_reader(opened, ready)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(hold_back(device(), float(sys.argv[1])))
