"""The picture that `make demo ARGS='--record FILE.svg'` writes: a terminal with some of the answers, for README."""

from __future__ import annotations

import re
from io import StringIO
from pathlib import Path

from rich.console import Console

COLUMNS = 100
TITLE = "make demo"


def make_picture() -> Console:
    """A console that shows nothing and keeps what is printed, in colour."""
    return Console(
        record=True, file=StringIO(), width=COLUMNS, force_terminal=True, color_system="truecolor", highlight=False
    )


def write_picture(picture: Console, path: Path) -> None:
    """Write what was printed as an SVG that loads nothing from other servers."""
    svg = picture.export_svg(title=TITLE, unique_id="demo")
    path.write_text(re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL), encoding="utf-8")
