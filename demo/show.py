"""How the demo looks: one panel an answer, with a word diff of what the upstream said and what the client got."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from demo.cases import Case


@dataclass(frozen=True, slots=True)
class Seen:
    """One answer as the client got it, beside what the upstream had said to that very request."""

    said: str
    got: str
    status: str
    reason: str
    objectives: str
    policy: str
    cache: str
    ms: str

    @property
    def edited(self) -> bool:
        """Corrected, and different."""
        return self.status in {"corrected", "pending"} and self.got != self.said

    @property
    def untouched(self) -> bool:
        """Looked at and left alone, character for character."""
        return self.status == "unchanged" and self.got == self.said


def diff(before: str, after: str, plain: bool) -> Text:
    """Both texts in one: removed words red and struck through, added words green; in [- -] and {+ +} where `plain`."""
    old, new = _words(before), _words(after)
    text = Text(style="not dim")
    for kind, a, b, c, d in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        gone, added = "".join(old[a:b]), "".join(new[c:d])
        if kind == "equal":
            text.append(gone)
            continue
        if gone:
            text.append(f"[-{gone}-]" if plain else gone, style="red strike")
        if added:
            text.append(f"{{+{added}+}}" if plain else added, style="bold green")
    return text


def _words(text: str) -> list[str]:
    return re.findall(r"\S+|\s+", text)


def answer(console: Console, who: str, case: Case, seen: Seen) -> None:
    """One panel."""
    facts = [seen.status, seen.reason, f"cache {seen.cache}" if seen.cache else "", f"{seen.ms} ms" if seen.ms else ""]
    body = Text(f"{case.title}\n\n", style="dim")
    body.append_text(diff(seen.said.strip(), seen.got.strip(), plain=not console.is_terminal))
    body.append(f"\n\nobjectives  {seen.objectives or '-'}\npolicy      {seen.policy or '-'}", style="dim")
    console.print(
        Panel(
            body,
            title=Text.assemble((who, "bold"), f"  {case.question}"),
            title_align="left",
            subtitle=Text("  ".join(filter(None, facts)), style="green" if seen.edited or seen.untouched else "yellow"),
            subtitle_align="right",
        )
    )


def heading(console: Console, text: str, note: str = "") -> None:
    """What comes next, and why it is worth a look."""
    console.print()
    console.rule(Text(text, style="bold"), align="left")
    if note:
        console.print(Text(note, style="dim"))
