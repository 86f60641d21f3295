"""`aligner-proxy review`: shows recorded answers one by one, nearest to the threshold first, and takes verdicts by key.

Each answer is leased to one reviewer at a time. Some answers without an edit are drawn at random, to estimate how much
is missed. With --json nothing is asked; the output has figures and ids of waiting answers but no text.
"""

from __future__ import annotations

import getpass
import time
from dataclasses import dataclass, field
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from aligner_proxy.audit import writer
from aligner_proxy.audit.entry import Redact
from aligner_proxy.audit.store import AuditStore
from aligner_proxy.cli.diff import TextTable, can_show_colours, render_diff
from aligner_proxy.cli.terminal import Terminal, echo_json
from aligner_proxy.plugins.api import Content, Entry
from aligner_proxy.text.hidden import escape_hidden
from aligner_proxy_review.cli.options import (
    OpenReviews,
    evidence_shares,
    open_reviews,
    review_options,
    share_fields,
    share_text,
)
from aligner_proxy_review.evidence import Evidence, percent_text, read_evidence
from aligner_proxy_review.judged_segments import judged_segments
from aligner_proxy_review.review_queue import AnswerPlace, ReviewQueue
from aligner_proxy_review.reviews import (
    NoSuchPlace,
    Review,
    ReviewOrigin,
    Reviews,
    ReviewVerdict,
    UnknownAnswer,
    parse_segment,
)

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
_VERDICT_BY_KEY = {"a": ReviewVerdict.RIGHT, "r": ReviewVerdict.WRONG, "h": ReviewVerdict.HARM}
_LAST_TURNS = 2
"""How many turns of the conversation are shown."""
_KEYS_IN_SHORT = "a right, r wrong, h harm, m missed, e edit, u undo, j next, k back, ? help, q end"


@click.command("review")
@click.option("--who", help="Your name in the reviews; by default the name of this machine's user.")
@click.option("--second", is_flag=True, help="Show answers that somebody else has reviewed and you have not.")
@review_options
def command(who: str | None, second: bool, as_json: bool, **options: Any) -> None:
    """Judge whether recorded answers were corrected rightly.

    For example: aligner-proxy review --policy gateway/policies.yaml
    """
    reviewer = f"reviewer:{who or getpass.getuser()}"
    with open_reviews(options) as store:
        queue = ReviewQueue(store.store, reviewer, store.answer_filter, second_opinion=second)
        if as_json:
            evidence = read_evidence(store.store, store.answer_filter)
            echo_json(_figure_fields(evidence, queue.count_waiting()), indent=2)
            return
        try:
            redact = writer.load_redaction(store.file)
            _ReviewLoop(Terminal(), store.store, queue, reviewer, redact).run()
        finally:
            queue.release()
        _show_figures(Terminal(), store, queue)


@dataclass(slots=True)
class _ReviewLoop:
    """The loop in which one reviewer gives verdicts."""

    console: Console
    store: AuditStore
    queue: ReviewQueue
    reviewer: str
    redact: Redact
    """Removes from a text that the reviewer wrote what must not be stored."""
    skipped: list[AnswerPlace] = field(default_factory=list)
    """Answers that the reviewer skipped without a verdict, the latest last."""
    reviews: list[Review] = field(default_factory=list)
    """Reviews of this run of the command, the latest last."""

    def run(self) -> None:
        """Ask about one answer after another until the queue is empty or the reviewer quits."""
        while (next_answer := self.queue.next(self.skipped)) is not None:
            entry, origin = next_answer
            show_entry(self.console, entry)
            if not self._ask_reviewer(entry, origin):
                return
        self.console.print("nothing more waits for a review")

    def _ask_reviewer(self, entry: Entry, origin: ReviewOrigin) -> bool:
        """Read keys until a verdict is saved or the reviewer goes on to another answer; return False to quit.

        `origin` is how the answer was chosen.
        """
        while True:
            self.console.print(_KEYS_IN_SHORT, style="dim", markup=False)
            key = click.getchar()
            if key == "q":
                return False
            if key == "?":
                self.console.print(TextTable(("key", "what it does"), _KEYS.items()))
            elif key == "u":
                self._undo()
            elif key == "j":
                self.skipped.append((entry.aligner_id, entry.choice))
                return True
            elif key == "k" and self.skipped:
                self.skipped.pop()
                return True
            elif key in (*_VERDICT_BY_KEY, "m", "e") and self._save_verdict(key, entry, origin):
                return True

    def _save_verdict(self, key: str, entry: Entry, origin: ReviewOrigin) -> bool:
        """Ask for the details of the verdict of a pressed key, and save it as a review.

        Return False if the segment or the objective does not exist; the caller then asks the reviewer again.
        """
        segment = edit = objective = None
        verdict = _VERDICT_BY_KEY.get(key, ReviewVerdict.MISSED)
        if key in ("m", "e"):
            segment_text = click.prompt("which segment (empty: the whole answer)", default="", show_default=False)
            segment = parse_segment(segment_text.strip())
        if key == "e":
            edit = click.prompt("what should stand there (empty: nothing)", default="", show_default=False)
            # a better text means that the edit was bad, or that an edit was missing
            verdict = ReviewVerdict.HARM if entry.changed else ReviewVerdict.MISSED
        if key == "m":
            objective = click.prompt("against which objective (empty: none)", default="", show_default=False) or None
        review = Review(
            entry.aligner_id,
            entry.choice,
            verdict,
            self.reviewer,
            at=time.time(),
            chosen=origin,
            segment=segment,
            edit=edit,
            objective=objective,
        )
        try:
            Reviews(self.store).save(review, self.redact)
        except NoSuchPlace as error:
            self.console.print(Text(str(error), style="red"))
            return False
        except UnknownAnswer:
            self.console.print("the answer was deleted meanwhile")
            return True
        self.reviews.append(review)
        return True

    def _undo(self) -> None:
        if self.reviews and Reviews(self.store).withdraw(self.reviews.pop()):
            self.console.print("taken back; the answer waits again")
        else:
            self.console.print("there is nothing to take back")


def show_entry(console: Console, entry: Entry) -> None:
    """Print an answer: the end of its conversation, the word diff, and its segments' scores.

    Hidden characters are escaped, so that no text can move the cursor. Prints nothing if no text was stored.
    """
    content = entry.content
    if content is None:
        return
    margin = "" if entry.margin is None else f", {entry.margin:.2f} nats from the threshold"
    reason = f" ({entry.reason})" if entry.reason else ""
    heading = f"{entry.aligner_id}/{entry.choice} {entry.tenant} {entry.policy} {entry.status}{reason}{margin}"
    console.rule()
    console.print(Text(escape_hidden(heading), style="bold"))
    for turn in content.exchange.turns[-_LAST_TURNS:]:
        console.print(Text(escape_hidden(f"{turn.role}: {turn.content}"), style="dim"))
    answer = content.exchange.answer or ""
    edited = answer if content.edited is None else content.edited
    console.print(render_diff(answer, edited, has_colours=can_show_colours(console)))
    console.print(TextTable(("segment", "score", "against", "text"), _segment_rows(content)))


def _segment_rows(content: Content) -> list[tuple[str, str, str, str]]:
    """(number, margin to the threshold, objective, text) of each judged segment, for a table."""
    rows = []
    for segment in judged_segments(content):
        margin = "-" if segment.margin is None else f"{segment.margin:+.2f}"
        rows.append((str(segment.number), margin, segment.objective, segment.text))
    return rows


def _show_figures(console: Console, store: OpenReviews, queue: ReviewQueue) -> None:
    """Print what the reviews prove so far, and how many more are needed."""
    evidence = read_evidence(store.store, store.answer_filter)
    rows: list[tuple[str, str, str]] = [
        ("edits that are right", share_text(evidence.right), str(evidence.right.more_needed)),
        ("missed, of those drawn at random", share_text(evidence.missed), str(evidence.missed.more_needed)),
    ]
    if evidence.recall is not None:
        rows.append(("found of what should be edited", percent_text(evidence.recall), ""))
    console.print(TextTable(("so far", "", "more needed"), rows))
    disagreements = (
        f"reviewers disagree on {len(evidence.disagreed)}, feedback with reviewers on {len(evidence.disputed)}"
    )
    console.print(f"{queue.count_waiting()} answers wait; {disagreements}", soft_wrap=True)


def _figure_fields(evidence: Evidence, waiting_count: int) -> dict[str, Any]:
    """What the reviews prove, and how many answers wait for a review, as JSON; without text."""
    return {
        "waiting": waiting_count,
        "answers": evidence.answers,
        **{
            name: share_fields(share) | {"more_needed": share.more_needed}
            for name, share in evidence_shares(evidence).items()
        },
        "recall": evidence.recall,
        "verdicts": dict(evidence.verdicts),
        "feedback": dict(evidence.feedback),
        "disagreed": [{"id": aligner_id, "choice": choice} for aligner_id, choice in evidence.disagreed],
        "disputed": [{"id": aligner_id, "choice": choice} for aligner_id, choice in evidence.disputed],
    }
