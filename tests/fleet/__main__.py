"""The test bed, started and kept until Ctrl-C: `python -m tests.fleet`."""

from __future__ import annotations

import signal
import sys
import threading
import time

from tests.fleet import needs, settings
from tests.fleet.bed import fleet


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Start it, say where things are, wait."""
    if said := needs.missing():
        sys.exit(said)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    began = time.monotonic()
    with fleet() as running:
        say(f"ready after {time.monotonic() - began:.0f} s; files in {running.folder}")
        for host in running.hosts.values():
            say(f"  {host.address:12} ip netns exec {host.namespace}")
        address = f"http://{running.address('balancer')}:{settings.GATEWAY_PORT}"
        say(f"clients: {address}, from the client's namespace; Ctrl-C ends it")
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            say("ending")


if __name__ == "__main__":
    main()
