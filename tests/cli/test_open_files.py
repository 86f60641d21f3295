"""The limit of open files beside --connections, in processes of their own: raised where it can be, else said."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
soft, hard, connections, each = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
from aligner_proxy.cli import open_files
from aligner_proxy.cli.options import log_to_stderr
from aligner_proxy.errors import ConfigError
log_to_stderr("text")
try:
    open_files.allow_connections(connections, each)
except ConfigError as error:
    print("refused:", error)
print("soft", resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


def said(*numbers: int) -> str:
    """What is printed and logged under these limits: soft, hard, connections, descriptors for each."""
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, numbers)], capture_output=True, text=True, timeout=60, check=True
    )
    return run.stdout + run.stderr


def test_a_low_soft_limit_is_raised_and_said() -> None:
    told = said(256, 4096, 1024, 3)
    assert "soft 4096" in told
    assert "raised from 256 to 4096" in told
    assert "refused" not in told
    assert "warning" not in told.lower()


def test_a_limit_below_the_connections_is_refused_with_both_numbers_and_a_fix() -> None:
    told = said(512, 512, 1024, 3)
    assert re.search(r"refused: --connections 1024 needs 1280 open files, but the hard limit.* is 512", told)
    assert "LimitNOFILE" in told
    assert "--connections 85" in told
    assert "refused" not in said(512, 512, 85, 3)


def test_a_limit_that_leaves_no_room_for_upstreams_is_a_warning() -> None:
    told = said(2000, 2000, 1024, 3)
    assert "refused" not in told
    assert "the hard limit of this process is 2000" in told
    assert "--connections 1024 needs up to 3328" in told
    assert "use --connections 581" in told


@pytest.mark.parametrize("limits", [(4096, 4096), (8192, 8192)])
def test_a_limit_that_is_enough_is_left_alone(limits: tuple[int, int]) -> None:
    told = said(*limits, 1024, 3)
    assert told.strip() == f"soft {limits[0]}"


def test_a_console_takes_as_many_connections_as_fit() -> None:
    call = "open_files.allow_connections(connections, each)"
    program = PROGRAM.replace(call, "print('fit', open_files.fit_connections(connections))")
    for limit, fit in ((4096, 500), (512, 256)):
        numbers = map(str, (limit, limit, 500, 1))
        run = [sys.executable, "-c", program, *numbers]
        told = subprocess.run(run, capture_output=True, text=True, timeout=60, check=True)
        assert f"fit {fit}\n" in told.stdout
        assert ("512 open files" in told.stderr) == (fit < 500)
