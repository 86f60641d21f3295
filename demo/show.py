"""Output of the demos: what was asked, a word diff of the upstream's and the delivered answer, and why."""

from __future__ import annotations

import difflib
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.text import Text

_MARGIN = "    "
_LABEL = 8
_EXAMINED = ("corrected", "unchanged")
_BREAK = "\n"
_ALIKE = 0.4
"""Share of words in common below which two texts are shown one after the other."""


def diff(before: str, after: str, plain: bool) -> Text:
    """Both texts in one: removed words red and struck through, added words green; with `plain` in [- -] and {+ +}.

    Lines that differ only in their number are the same line, so that what is removed from a list stands by itself.
    """
    old = before.splitlines(keepends=True)
    new = after.splitlines(keepends=True)
    text = Text()
    for kind, a, b, c, d in _opcodes([_remove_number(line) for line in old], [_remove_number(line) for line in new]):
        pairs = zip(old[a:b], new[c:d], strict=True) if kind == "equal" else [("".join(old[a:b]), "".join(new[c:d]))]
        for removed, added in pairs:
            _append_words(text, removed, added, plain)
    return text


def _append_words(text: Text, before: str, after: str, plain: bool) -> None:
    """Append a word diff; of texts with little in common, all of the first and then all of the second."""
    old, new = (re.findall(r"\S+|\s+", side) for side in (before, after))
    alike = difflib.SequenceMatcher(None, before.split(), after.split(), autojunk=False).ratio() >= _ALIKE
    for kind, a, b, c, d in _opcodes(old, new) if alike else [("replace", 0, len(old), 0, len(new))]:
        removed = "".join(old[a:b])
        added = "".join(new[c:d])
        if kind == "equal":
            text.append(removed)
            continue
        if removed:
            text.append(f"[-{removed.rstrip(_BREAK)}-]" if plain else removed.rstrip(_BREAK), style="red strike")
        if added:
            text.append("" if plain or not removed else " ")
            text.append(f"{{+{added}+}}" if plain else added, style="bold green")
        text.append(_BREAK * removed.endswith(_BREAK) * (not added))


def _opcodes(old: list[str], new: list[str]) -> Sequence[tuple[str, int, int, int, int]]:
    return difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes()


def _remove_number(line: str) -> str:
    return re.sub(r"^\s*\d+\.", "", line)


def status_text(word: str, reason: str | None, ms: float | None) -> Text:
    """The status of an answer, and what looking at it added to the time of the response."""
    facts = [f"{word} ({reason})" if reason else word, f"{ms:.0f} ms added" if ms is not None else ""]
    return Text(", ".join(filter(None, facts)), style="green" if word in _EXAMINED else "yellow")


def print_headline(console: Console, text: str) -> None:
    """Print the headline of an answer."""
    console.print()
    console.print(Text(text, style="bold"))


def print_rows(console: Console, *pairs: tuple[str, Text | str]) -> None:
    """Print labels and what stands beside them, indented below a headline."""
    for label, value in pairs:
        text = value if isinstance(value, Text) else Text(value)
        lines = text.wrap(console, console.width - len(_MARGIN) - _LABEL, overflow="fold")
        for number, line in enumerate(lines):
            row = Text.assemble(_MARGIN, (f"{'' if number else label:{_LABEL}}", "dim"), line)
            row.rstrip()
            console.print(row, soft_wrap=True)


def print_policy_check(console: Console, title: str, arguments: Sequence[str], env: Mapping[str, str] | None) -> None:
    """Print the policy table of `aligner-proxy check` run in `env`; without `env` print only the command."""
    command = ["aligner-proxy", "check", *arguments]
    if env is None:
        console.print(Text(f"\n{title}: {shlex.join(command)}  (--verbose runs it)", style="dim"), soft_wrap=True)
        return
    print_heading(console, title, shlex.join(command))
    subprocess.run([sys.executable, "-m", "aligner_proxy", *command[1:]], env=env, check=True)


def print_heading(console: Console, text: str, note: str = "") -> None:
    """Print the title of the next part, and a note on what it shows."""
    console.print()
    console.rule(Text(text, style="bold"), align="left")
    if note:
        console.print(Text(note, style="dim"))
