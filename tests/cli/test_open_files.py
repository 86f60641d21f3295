"""The limit of open files beside --connections, in processes of their own: raised where it can be, else said."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

PROGRAM = """
import os, resource, sys
from aligner_proxy.cli import open_files
from aligner_proxy.cli.options import log_to_stderr
from aligner_proxy.errors import ConfigError

def try_limits(soft, hard, connections, each):
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    log_to_stderr("text")
    if each == 0:
        print("fit", open_files.fit_connections(connections))
        return
    try:
        open_files.allow_connections(connections, each)
    except ConfigError as error:
        print("refused:", error)
    print("soft", resource.getrlimit(resource.RLIMIT_NOFILE)[0])

for line in sys.stdin:
    if os.fork():
        print("status", os.wait()[1], flush=True)
        continue
    os.dup2(1, 2)
    try:
        try_limits(*map(int, line.split()))
        sys.stdout.flush()
    except BaseException:
        os._exit(1)
    os._exit(0)
"""
Said = Callable[..., str]


@pytest.fixture(scope="module")
def said() -> Iterator[Said]:
    """What is printed and logged under limits: soft, hard, connections, descriptors for each (0: as many as fit).

    Imports take a second, and a hard limit is never raised again; so one process imports, and a copy of it tries.
    """
    command = [sys.executable, "-c", PROGRAM]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout

        def ask(*numbers: int) -> str:
            print(*numbers, file=process.stdin, flush=True)
            lines = list[str]()
            while not (line := process.stdout.readline()).startswith("status"):
                assert line, "the process ended"
                lines.append(line)
            assert line == "status 0\n", lines
            return "".join(lines)

        yield ask
        process.stdin.close()


def test_a_low_soft_limit_is_raised_and_said(said: Said) -> None:
    told = said(256, 4096, 1024, 3)
    assert "soft 4096" in told
    assert "raised from 256 to 4096" in told
    assert "refused" not in told
    assert "warning" not in told.lower()


def test_a_limit_below_the_connections_is_refused_with_both_numbers_and_a_fix(said: Said) -> None:
    told = said(512, 512, 1024, 3)
    assert re.search(r"refused: --connections 1024 needs 1280 open files, but the hard limit.* is 512", told)
    assert "LimitNOFILE" in told
    assert "--connections 85" in told
    assert "refused" not in said(512, 512, 85, 3)


def test_a_limit_that_leaves_no_room_for_upstreams_is_a_warning(said: Said) -> None:
    told = said(2000, 2000, 1024, 3)
    assert "refused" not in told
    assert "the hard limit of this process is 2000" in told
    assert "--connections 1024 needs up to 3328" in told
    assert "use --connections 581" in told


@pytest.mark.parametrize("limits", [(4096, 4096), (8192, 8192)])
def test_a_limit_that_is_enough_is_left_alone(said: Said, limits: tuple[int, int]) -> None:
    told = said(*limits, 1024, 3)
    assert told.strip() == f"soft {limits[0]}"


def test_a_console_takes_as_many_connections_as_fit(said: Said) -> None:
    for limit, fit in ((4096, 500), (512, 256)):
        told = said(limit, limit, 500, 0)
        assert f"fit {fit}\n" in told
        assert ("512 open files" in told) == (fit < 500)
