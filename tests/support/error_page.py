"""The rows of docs/reference/errors.md: what is printed after a mistake, and with which status."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "errors.md"
ROW = re.compile(r"^\| (?P<mistake>[^|]+) \| `(?P<message>.+)` \| (?P<status>\d+) \|$", flags=re.MULTILINE)


class PrintedError(NamedTuple):
    """A message of the page, with `…` for what differs, and the status beside it."""

    message: str
    status: int

    def fits(self, text: str) -> bool:
        """Whether a text has the message in it."""
        pattern = ".*".join(map(re.escape, self.message.split("…")))
        return re.search(pattern, text, flags=re.DOTALL) is not None


def read_errors(section: str) -> dict[str, PrintedError]:
    """The messages of a section of the page, by the mistake."""
    _, _, text = PAGE.read_text(encoding="utf-8").partition(f"\n## {section}\n")
    rows = ROW.finditer(text.split("\n## ")[0])
    return {row["mistake"]: PrintedError(row["message"], int(row["status"])) for row in rows}
