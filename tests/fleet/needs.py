"""What the test bed needs of a machine: programs of Debian's packages, and the right to make network namespaces.

`python -m tests.fleet.needs` prints one line with the packages; without arguments it says what is missing, too, and
ends with status 1 where anything is.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support import postgres_server

PROGRAMS = {
    "ip": "iproute2",
    "nft": "nftables",
    "haproxy": "haproxy",
    "redis-server": "redis-server",
    "datefudge": "datefudge",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "unshare": "util-linux",
}
"""Programs and the Debian packages that they are in."""
DATABASE = "postgresql"
PACKAGES = tuple(dict.fromkeys((*PROGRAMS.values(), DATABASE)))
TUN = Path("/dev/net/tun")


def path() -> str:
    """Where programs are looked for: the folders of the administrator's programs, too."""
    return os.pathsep.join((*os.get_exec_path(), "/usr/sbin", "/sbin"))


def packages_missing() -> list[str]:
    """The packages that the machine lacks."""
    lacking = [package for program, package in PROGRAMS.items() if shutil.which(program, path=path()) is None]
    return list(dict.fromkeys(lacking + ([] if postgres_server.PROGRAM else [DATABASE])))


@functools.cache
def missing() -> str:
    """What is missing, in words; nothing where the test bed can be made."""
    packages = packages_missing()
    if packages:
        return f"needs Debian's packages {' '.join(packages)}: apt-get install {' '.join(packages)}"
    made = subprocess.run(["unshare", "--net", "--mount", "true"], capture_output=True, check=False)
    if os.getuid() or made.returncode:
        return "needs the right to make network namespaces: run as root, in a container with CAP_SYS_ADMIN"
    return "" if TUN.exists() else f"needs {TUN}, which delays packets"


if __name__ == "__main__":
    sys.stdout.write(f"{' '.join(PACKAGES)}\n")
    if said := missing():
        sys.exit(said)
