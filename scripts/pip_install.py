"""Quiet pip: one line on the terminal, and pip's whole output in a log file.

`python scripts/pip_install.py LOG LABEL ARGUMENTS...` runs `pip install ARGUMENTS`. On a terminal the line has a
progress bar. It counts pins of the requirements file, or bytes of a download if pip reports them (24.1 and newer). If
pip fails, the last lines of the log are printed with its path. The exit status is pip's.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import deque
from importlib.metadata import version
from pathlib import Path
from typing import TextIO

WIDTH = 30
REDRAW_S = 0.1
TAIL = 15
# One line for each package, whether it must be downloaded or is already installed.
PACKAGE = re.compile(r"(Collecting|Requirement already satisfied)\b")
BYTES = re.compile(r"Progress (\d+) of (\d+)")
# A registry mirror may name hundreds of folders that do not exist. The log keeps these lines, but they must not push
# the error out of the last lines.
NOISE = re.compile(r"WARNING: Location .* is ignored")


class ProgressLine:
    """The progress line: redrawn on a terminal, printed once elsewhere."""

    def __init__(self, label: str, total: int, out: TextIO) -> None:
        self.label = label
        self.total = total
        self.out = out
        self.live = out.isatty()
        self.began = time.monotonic()
        self.drawn_at = 0.0
        self.packages = 0
        self.note = ""
        if not self.live:
            print(label, file=out, flush=True)

    def read_line(self, line: str) -> None:
        """Update the counts from a line of pip's output."""
        share = self.packages / self.total if self.total else None
        if downloaded := BYTES.match(line):
            share = int(downloaded[1]) / max(1, int(downloaded[2]))
        elif PACKAGE.match(line):
            self.packages += 1
        elif line.lstrip().startswith(("Downloading ", "Using cached ", "Installing ")):
            self.note = line.strip()
            if line.startswith("Installing "):
                self.note = "installing"
                self.total = 0
        if self.live and time.monotonic() - self.drawn_at > REDRAW_S:
            self._draw(share)

    def _draw(self, share: float | None) -> None:
        self.drawn_at = time.monotonic()
        filled = round(WIDTH * min(1.0, share or 0.0))
        bar = "" if share is None else f" [{'#' * filled}{'.' * (WIDTH - filled)}]"
        seconds = f"{self.drawn_at - self.began:.0f} s"
        line = f"{self.label}{bar} {seconds} {self.note}"
        print(f"\r\033[K{line[:118]}", end="", file=self.out, flush=True)

    def end(self, outcome: str) -> None:
        """Replace the line by the final outcome."""
        if self.live:
            print(f"\r\033[K{self.label}: {outcome}, {time.monotonic() - self.began:.0f} s", file=self.out, flush=True)


def count_pins(arguments: list[str]) -> int:
    """How many packages the requirements file among the arguments pins; 0 without one."""
    if "-r" not in arguments:
        return 0
    text = Path(arguments[arguments.index("-r") + 1]).read_text(encoding="utf-8")
    return len(re.findall(r"(?m)^[A-Za-z0-9._\[\]-]+==", text))


def main(log: Path, label: str, arguments: list[str]) -> int:
    """Run pip and return its exit status."""
    line = ProgressLine(label, count_pins(arguments), sys.stderr)
    reports_bytes = tuple(map(int, version("pip").split(".")[:2])) >= (24, 1)
    bar = "raw" if reports_bytes and line.live else "off"
    # Skip compilation: Python compiles modules on first import, and most of those in torch and transformers are never
    # imported.
    command = [sys.executable, "-m", "pip", "install", "--no-compile", "--disable-pip-version-check", "--no-input"]
    last: deque[str] = deque(maxlen=TAIL)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as output:
        print(f"$ pip install {' '.join(arguments)}", file=output, flush=True)
        with subprocess.Popen(
            [*command, "--progress-bar", bar, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        ) as pip:
            assert pip.stdout is not None
            for text in pip.stdout:
                if not BYTES.match(text):
                    output.write(text)
                    if not NOISE.match(text):
                        last.append(text)
                line.read_line(text)
    line.end("failed" if pip.returncode else "done")
    if pip.returncode:
        print(*last, f"pip's whole output is in {log}", sep="", file=sys.stderr)
    return pip.returncode


if __name__ == "__main__":
    # Ctrl-C should end pip and the shell script without a traceback of ours.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))
