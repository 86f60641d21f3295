"""Output of the demo: one panel for each answer, with a word diff of the upstream's and the delivered answer."""

from __future__ import annotations

import difflib
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from demo.cases import Case


@dataclass(frozen=True, slots=True)
class Seen:
    """A delivered answer, the upstream's answer to the same request, and the status from the headers."""

    upstream: str
    delivered: str
    status: str
    reason: str
    objectives: str
    policy: str
    cache: str
    ms: str

    @property
    def edited(self) -> bool:
        """Whether it was corrected and differs."""
        return self.status in {"corrected", "pending"} and self.delivered != self.upstream

    @property
    def untouched(self) -> bool:
        """Whether it was judged and left unchanged, character for character."""
        return self.status == "unchanged" and self.delivered == self.upstream


def diff(before: str, after: str, plain: bool) -> Text:
    """Both texts in one: removed words red and struck through, added words green; with `plain` in [- -] and {+ +}."""
    old = _words(before)
    new = _words(after)
    text = Text(style="not dim")
    for kind, a, b, c, d in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        removed = "".join(old[a:b])
        added = "".join(new[c:d])
        if kind == "equal":
            text.append(removed)
            continue
        if removed:
            text.append(f"[-{removed}-]" if plain else removed, style="red strike")
        if added:
            text.append(f"{{+{added}+}}" if plain else added, style="bold green")
    return text


def _words(text: str) -> list[str]:
    return re.findall(r"\S+|\s+", text)


def answer(console: Console, who: str, case: Case, seen: Seen) -> None:
    """Print one answer as a panel."""
    facts = [seen.status, seen.reason, f"cache {seen.cache}" if seen.cache else "", f"{seen.ms} ms" if seen.ms else ""]
    body = Text(f"{case.title}\n\n", style="dim")
    body.append_text(diff(seen.upstream.strip(), seen.delivered.strip(), plain=not console.is_terminal))
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


def check(console: Console, title: str, arguments: Sequence[str], env: Mapping[str, str] | None) -> None:
    """Print the policy table of `aligner-proxy check` run in `env`; without `env` print only the command."""
    command = ["aligner-proxy", "check", *arguments]
    if env is None:
        console.print(Text(f"\n{title}: {shlex.join(command)}  (--verbose runs it)", style="dim"), soft_wrap=True)
        return
    heading(console, title, shlex.join(command))
    subprocess.run([sys.executable, "-m", "aligner_proxy", *command[1:]], env=env, check=True)


def heading(console: Console, text: str, note: str = "") -> None:
    """Print the title of the next part, and a note on what it shows."""
    console.print()
    console.rule(Text(text, style="bold"), align="left")
    if note:
        console.print(Text(note, style="dim"))
