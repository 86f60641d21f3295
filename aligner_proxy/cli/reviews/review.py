"""`aligner-proxy review`: recorded answers one by one, the nearest to the threshold first, by single keys.

Each answer is held for one reviewer at a time. Some of those without an edit are drawn at random, so that there is a
figure for what is missed. With --json nothing is asked: figures and ids of what waits, no text.
"""

from __future__ import annotations

import getpass
import time
from dataclasses import dataclass, field
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from aligner_proxy.audit.evidence import Evidence, evidence_of
from aligner_proxy.audit.judged import judged_segments
from aligner_proxy.audit.review_queue import Place, ReviewQueue
from aligner_proxy.audit.reviews import Chosen, Review, Reviews, ReviewVerdict
from aligner_proxy.audit.store import Store
from aligner_proxy.cli.diff import table, word_diff
from aligner_proxy.cli.reviews.options import Opened, as_numbers, opened, percent, review_options, shares
from aligner_proxy.cli.terminal import Terminal, echo_json
from aligner_proxy.errors import NoSuchPlace, UnknownAnswer
from aligner_proxy.plugins.api import Content, Entry
from aligner_proxy.text.hidden import escape_hidden

_KEYS = {
    "a": "right: what was done to it is right, an edit or none",
    "r": "wrong: it was edited without need",
    "h": "harm: the edit made it worse",
    "m": "missed: something should have been edited; asks which segment, and for what",
    "e": "edit: asks what should stand in place of the whole answer, or of a segment",
    "u": "undo: take the last verdict back",
    "j": "next, without a verdict",
    "k": "back to the one before",
    "?": "this help",
    "q": "end",
}
_VERDICTS = {"a": ReviewVerdict.RIGHT, "r": ReviewVerdict.WRONG, "h": ReviewVerdict.HARM}
_LAST_TURNS = 2
_PROMPT = "a right, r wrong, h harm, m missed, e edit, u undo, j next, k back, ? help, q end"


@click.command("review")
@click.option("--who", help="Your name in the reviews; by default the name of this machine's user.")
@click.option("--second", is_flag=True, help="Answers that somebody else has reviewed and you have not.")
@review_options
def command(who: str | None, second: bool, as_json: bool, **given: Any) -> None:
    """Say of recorded answers whether they were corrected rightly."""
    who = f"reviewer:{who or getpass.getuser()}"
    with opened(given) as store:
        queue = ReviewQueue(store.store, who, store.wanted, second=second)
        if as_json:
            found = evidence_of(store.store, store.wanted)
            echo_json(_figures(found, queue.waiting()), indent=2)
            return
        try:
            _Desk(Terminal(), store.store, queue, who).work()
        finally:
            queue.release()
        _show_figures(Terminal(), store, queue)


@dataclass(slots=True)
class _Desk:
    """One reviewer at work."""

    console: Console
    store: Store
    queue: ReviewQueue
    who: str
    passed: list[Place] = field(default_factory=list)
    """Answers that were left without a verdict, the last one at the end."""
    given: list[Review] = field(default_factory=list)
    """Reviews of this sitting."""

    def work(self) -> None:
        """Ask about one answer after the other, until there is none or the reviewer ends."""
        while (found := self.queue.next(self.passed)) is not None:
            entry, chosen = found
            show_entry(self.console, entry)
            if not self._asked(entry, chosen):
                return
        self.console.print("nothing more waits for a review")

    def _asked(self, entry: Entry, chosen: Chosen) -> bool:
        """Take keys until there is a verdict, or the reviewer goes on; False: the reviewer ends."""
        while True:
            self.console.print(_PROMPT, style="dim", markup=False)
            key = click.getchar()
            if key == "q":
                return False
            if key == "?":
                self.console.print(table(("key", "what it does"), _KEYS.items()))
            elif key == "u":
                self._undo()
            elif key == "j":
                self.passed.append((entry.aligner_id, entry.choice))
                return True
            elif key == "k" and self.passed:
                self.passed.pop()
                return True
            elif key in (*_VERDICTS, "m", "e") and self._kept(key, entry, chosen):
                return True

    def _kept(self, key: str, entry: Entry, chosen: Chosen) -> bool:
        """Keep the verdict of a key, with what is asked for it; False where it cannot be kept."""
        segment = edit = objective = None
        verdict = _VERDICTS.get(key, ReviewVerdict.MISSED)
        if key in ("m", "e"):
            segment = _number(click.prompt("which segment (empty: the whole answer)", default="", show_default=False))
        if key == "e":
            edit = click.prompt("what should stand there (empty: nothing)", default="", show_default=False)
            verdict = ReviewVerdict.HARM if entry.changed else ReviewVerdict.MISSED
        if key == "m":
            objective = click.prompt("against which objective (empty: none)", default="", show_default=False) or None
        place = (entry.aligner_id, entry.choice)
        review = Review(*place, verdict, self.who, time.time(), chosen, segment, edit, objective)
        try:
            Reviews(self.store).keep(review)
        except NoSuchPlace as error:
            self.console.print(Text(str(error), style="red"))
            return False
        except UnknownAnswer:
            self.console.print("the answer was deleted meanwhile")
            return True
        self.given.append(review)
        return True

    def _undo(self) -> None:
        if self.given and Reviews(self.store).withdraw(self.given.pop()):
            self.console.print("taken back; the answer waits again")
        else:
            self.console.print("there is nothing to take back")


def _number(text: str) -> int | None:
    """The number of a segment; -1, which no answer has, for what is none."""
    text = text.strip()
    return int(text) if text.isdecimal() else -1 if text else None


def show_entry(console: Console, entry: Entry) -> None:
    """One answer: the end of its conversation, the word diff, the scores of its segments. Hostile text stays text."""
    content = entry.content
    if content is None:
        return
    margin = "" if entry.margin is None else f", {entry.margin:.2f} nats from the threshold"
    head = f"{entry.aligner_id}/{entry.choice} {entry.tenant} {entry.policy} {entry.status}"
    console.rule()
    console.print(Text(escape_hidden(head + (f" ({entry.reason})" if entry.reason else "") + margin), style="bold"))
    for turn in content.exchange.turns[-_LAST_TURNS:]:
        console.print(Text(escape_hidden(f"{turn.role}: {turn.content}"), style="dim"))
    answer = content.exchange.answer or ""
    console.print(word_diff(answer, answer if content.edited is None else content.edited))
    console.print(table(("segment", "score", "against", "text"), _segments(content)))


def _segments(content: Content) -> list[tuple[str, ...]]:
    """Number, score, objective and text of each judged segment, for a table."""
    return [
        (
            str(segment.number),
            "-" if segment.margin is None else f"{segment.margin:+.2f}",
            segment.objective,
            segment.text,
        )
        for segment in judged_segments(content)
    ]


def _show_figures(console: Console, store: Opened, queue: ReviewQueue) -> None:
    found = evidence_of(store.store, store.wanted)
    rows: list[tuple[str, str, str]] = [
        ("edits that are right", percent(found.right), str(found.right.more_needed)),
        ("missed, of those drawn at random", percent(found.missed), str(found.missed.more_needed)),
    ]
    if found.recall is not None:
        value, low, high = (100 * part for part in found.recall)
        rows.append(("found of what should be edited", f"{value:.1f} % ({low:.1f} to {high:.1f})", ""))
    console.print(table(("so far", "", "more needed"), rows))
    apart = f"reviewers disagree on {len(found.disagreed)}, feedback with reviewers on {len(found.disputed)}"
    console.print(f"{queue.waiting()} answers wait; {apart}", soft_wrap=True)


def _figures(found: Evidence, waiting: int) -> dict[str, Any]:
    return {
        "waiting": waiting,
        "answers": found.answers,
        **{name: as_numbers(share) | {"more_needed": share.more_needed} for name, share in shares(found).items()},
        "recall": found.recall,
        "verdicts": dict(found.verdicts),
        "feedback": dict(found.feedback),
        "disagreed": [{"id": aligner_id, "choice": choice} for aligner_id, choice in found.disagreed],
        "disputed": [{"id": aligner_id, "choice": choice} for aligner_id, choice in found.disputed],
    }
