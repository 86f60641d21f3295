"""Quiet pip: what stands on the terminal, and what in the log."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from pathlib import Path

from scripts.pip_install import ProgressLine, count_pins

SCRIPT = Path(__file__).parents[2] / "scripts" / "pip_install.py"


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_an_error_shows_the_end_of_the_log_and_names_it(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "setup.log"
    command = [sys.executable, str(SCRIPT), str(log), "setup: a wheel", "--no-index", str(tmp_path / "no.whl")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    first, *rest = ended.stderr.splitlines()
    assert ended.returncode == 1
    assert first == "setup: a wheel"
    assert any(line.startswith("ERROR: ") for line in rest)
    assert rest[-1] == f"pip's whole output is in {log}"
    assert "no.whl" in log.read_text()


def test_nothing_is_compiled_before_it_is_imported(tmp_path: Path) -> None:
    wheel = tmp_path / "tiny-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny.py", "")
        archive.writestr("tiny-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1\n")
        archive.writestr("tiny-1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("tiny-1.dist-info/RECORD", "")
    lib = tmp_path / "lib"
    arguments = ["--no-index", "--no-deps", "--target", str(lib), str(wheel)]
    subprocess.run([sys.executable, str(SCRIPT), str(tmp_path / "log"), "setup: a wheel", *arguments], check=True)
    assert (lib / "tiny.py").exists()
    assert not list(lib.rglob("*.pyc"))


def test_without_a_terminal_there_is_one_line() -> None:
    out = io.StringIO()
    line = ProgressLine("setup: packages", 2, out)
    for text in ("Collecting a==1\n", "  Downloading a.whl (1 kB)\n", "Installing collected packages: a\n"):
        line.read_line(text)
    line.end("done")
    assert out.getvalue() == "setup: packages\n"


def test_the_bar_counts_packages_and_bytes() -> None:
    out = Terminal()
    line = ProgressLine("setup: packages", 2, out)
    line.read_line("Collecting a==1\n")
    line.drawn_at = 0.0
    line.read_line("Requirement already satisfied: b==1 in x\n")
    assert f"[{'#' * 15}{'.' * 15}]" in out.getvalue()
    line.drawn_at = 0.0
    line.read_line("Progress 10 of 30\n")
    assert f"[{'#' * 10}{'.' * 20}]" in out.getvalue()
    line.end("done")
    assert out.getvalue().split("\r\033[K")[-1] == "setup: packages: done, 0 s\n"


def test_pins_of_a_lock_file_are_counted(tmp_path: Path) -> None:
    lock = tmp_path / "a.lock"
    lock.write_text("# made by x==1\na==1 \\\n    --hash=sha256:00\nb[c]==2\n")
    assert count_pins(["--no-deps", "-r", str(lock)]) == 2
    assert count_pins(["torch==2.13.0"]) == 0
