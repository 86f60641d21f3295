"""Terminal output of commands, with control characters in untrusted text escaped.

Answers, questions, names of models and tenants, and errors of other machines may contain escape sequences that colour a
terminal, move its cursor, or write its title or clipboard. Commands print only through `Terminal`, `echo` and
`echo_json`, which escape them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

import click
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from aligner_proxy.text.hidden import escape_hidden, is_hidden


class Terminal(Console):
    """A rich console that escapes control characters in all texts; only rich itself can set colours."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render with every control character of a text replaced by its number."""
        if isinstance(renderable, Text):
            renderable = _escape_text(renderable)
        elif isinstance(renderable, str):
            renderable = escape_hidden(renderable)
        return super().render(renderable, options)


def _escape_text(text: Text) -> Text:
    """Return the text with each hidden character replaced by its number, and with its colours."""
    hidden_offsets = [offset for offset, character in enumerate(text.plain) if is_hidden(character)]
    if not hidden_offsets:
        return text
    # The text is cut before and after each hidden character, so that the character is a piece of its own.
    cut_offsets = {*hidden_offsets, *(offset + 1 for offset in hidden_offsets)}
    escaped_text = text.blank_copy()
    for piece in text.divide(sorted(cut_offsets)):
        if len(piece) == 1 and is_hidden(piece.plain):
            piece = Text(escape_hidden(piece.plain), style=piece.spans[0].style if piece.spans else "")
        escaped_text.append_text(piece)
    return escaped_text


def echo(*parts: str | tuple[str, str], err: bool = False) -> None:
    """Print texts as one line, to stderr if `err` is set; a coloured text is given as a pair (text, colour)."""
    line = ""
    for part in parts:
        text, colour = (part, None) if isinstance(part, str) else part
        line += escape_hidden(text) if colour is None else click.style(escape_hidden(text), fg=colour)
    click.echo(line, err=err)


def echo_json(value: object, *, indent: int | None = None, ascii_only: bool = True) -> None:
    """Print JSON for programs. Hidden characters are escaped, because a terminal may show the JSON."""
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    click.echo("".join(_json_escape(character) if is_hidden(character) else character for character in text))


def print_progress(done: int, of: int) -> None:
    """Print that `done` of `of` steps are finished, as a line of JSON for a program that runs the command."""
    echo_json({"done": done, "of": of})


def _json_escape(character: str) -> str:
    """The JSON escape of a hidden character; DEL is handled separately, because Python's JSON does not escape it."""
    return "\\u007f" if character == "\x7f" else json.dumps(character)[1:-1]
