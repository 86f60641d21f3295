"""Tables and text in Markdown for the generated pages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

NOTICE = "<!-- Written by `python -m scripts.reference`; do not edit. -->"


def code(text: object) -> str:
    """A text as inline code."""
    return f"`{text}`"


def words(items: Sequence[str]) -> str:
    """A choice of several items: "a, b or c"."""
    *first, last = items
    return f"{', '.join(first)} or {last}" if first else last


def sentence(text: str) -> str:
    """A description on one line, with a capital letter and a full stop."""
    line = " ".join(text.split())
    if not line:
        return ""
    # A key or value at the start must stay as typed; it is not purely alphabetic, or a comma or colon follows it.
    if line.split()[0].isalpha():
        line = line[0].upper() + line[1:]
    return line if line.endswith((".", "?", "!")) else f"{line}."


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; vertical bars inside cells are escaped."""
    lines = [list(columns), ["---"] * len(columns), *(list(row) for row in rows)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line).rstrip() + " |" for line in lines)


def page(title: str, introduction: str, *sections: str) -> str:
    """A whole page."""
    return "\n\n".join((f"# {title}", NOTICE, introduction.strip(), *(part.strip() for part in sections))) + "\n"
