"""Stage: one concern of a correction, by which an answer is changed safely, whole or while it is written.

A driver takes an answer through its stages, always in the same order, and asks each of them four questions:

    admit    Text has come that nobody has judged. May it be corrected? A stage may stop the correction, or hold the
             answer until its end.
    release  Text was judged, edited and passed by the gate, and is about to go out. What goes out in its place?
    settle   All is judged, and the rest has not gone out. What becomes of the answer? As long as nothing of a growing
             answer went out, a stage holds it instead, and settles the whole.
    report   All went out. What is said of it in headers, metrics and the audit log?

A whole answer is a stream that ends at once: it is admitted once, released once from its first character to its last,
settled and reported. So each concern is written once, and a stage need not care whether its answer streams; where it
can do better with the whole, `Outgoing.is_whole` says that this is all. The gateway's own stages are the files of
`pipeline/stages/`; a plugin brings further ones (`Extension.stages`).

There is no `begin` and no `aclose`. The first `admit` is the beginning, which a stage notices by itself. What has to be
closed (the engine's session) belongs to the driver, which ends it also where a stage fails. Whatever a stage raises
ends the correction with the reason of that error, and the policy decides what the client gets.

The drivers are `Pipeline.align` for whole answers and `AnswerPart` for growing ones (pipeline/answer_part.py).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from aligner_proxy.text.structure import Segment
from aligner_proxy.types import EditorUse, Exchange, Finding, Outcome, Policy, SegmentScore, Status

_Read = TypeVar("_Read")


class PolicyEditor(Protocol):
    """The editor that a policy names, for what a stage asks it about one answer."""

    async def ask(
        self,
        messages: Sequence[Mapping[str, str]],
        read: Callable[[str], _Read],
        *,
        tokens: int,
        form: Mapping[str, Any] | None = None,
    ) -> tuple[_Read | None, EditorUse]:
        """What `read` makes of a reply of at most `tokens`, None where the editor cannot be asked; and what it cost.

        `form` is the JSON schema of a reply; `read` raises `InvalidOutput` for one of which nothing can be made.
        """
        ...


def has_no_editor(answer: AnswerSoFar) -> PolicyEditor | None:
    """None: nobody writes."""
    return None


@dataclass(frozen=True, slots=True)
class AnswerSoFar:
    """An answer as far as it has come."""

    exchange: Exchange
    """What is known of it; the text may have grown since."""
    text: str
    """The text so far; empty where there is none."""
    policy: Policy
    deadline: float = 0.0
    """When the correction must be there, in seconds of `time.monotonic()`."""
    is_whole: bool = True
    """All of it is there, and nothing of it has gone out."""
    has_ended: bool = True
    is_part: bool = False
    """It is a part of a longer answer, of which nothing can be said by itself."""
    is_structured: bool = False
    """A program reads it."""
    is_stopped: bool = False
    """Its correction was given up: not all of it was judged."""
    sent_chars: int = 0
    """So many characters of it are decided: what stands in their place has gone out."""
    segments: Sequence[Segment] = ()
    """The segments of a growing answer."""
    verdicts: Sequence[SegmentScore] = ()
    """The verdicts on the first of them."""
    open_editor: Callable[[AnswerSoFar], PolicyEditor | None] = has_no_editor

    @property
    def editor(self) -> PolicyEditor | None:
        """Whom a stage may ask about it until the deadline; None where the policy names nobody."""
        return self.open_editor(self)


@dataclass(frozen=True, slots=True)
class Stop:
    """The answer is not corrected, or not any further; what is undecided of it goes out as it is, or not at all."""

    status: Status
    reason: str


@dataclass(frozen=True, slots=True)
class Hold:
    """Nothing of the answer may go out before it has ended; it is then corrected as a whole."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """Text that is about to go out in place of a stretch of the answer that begins at `start`."""

    text: str
    start: int = 0
    is_whole: bool = True
    """It stands in place of the whole answer, or of a whole text in it."""
    is_original: bool = False
    """It is what the upstream wrote."""
    has_whole_segments: bool = True
    segments: Sequence[Segment] = ()
    """The segments of a growing answer that begin in the stretch."""
    removed_segments: Collection[int] = ()
    """Those of them of which nothing is left, counted from the first."""
    findings: tuple[Finding, ...] = ()
    """What stages found in it, and what they put there; places are those of the answer."""
    editor: EditorUse | None = None
    """What stages had an editor write for it."""


LAST = 100
"""The place of a stage that says nothing of its place."""


class Stage(Protocol):
    """One concern of the correction of one answer. Every default changes nothing; a stage says what it does."""

    order: int = LAST
    """Its place: lower ones first. The gateway's own are eligibility 0, list numbers 10, refusal text 30, reports 40
    and language 50; what changes the text of an answer belongs before the refusal text."""

    async def admit(self, answer: AnswerSoFar) -> Stop | Hold | None:
        """Whether text that has come may be corrected, before it is judged and once more when all of it is judged."""
        return None

    async def release(self, outgoing: Outgoing, answer: AnswerSoFar) -> Outgoing:
        """What goes out in place of a text that was judged."""
        return outgoing

    async def settle(self, outcome: Outcome, answer: AnswerSoFar) -> Outcome:
        """What becomes of an answer of which all is judged and the rest has not gone out."""
        return outcome

    def report(self, outcome: Outcome, answer: AnswerSoFar) -> Outcome:
        """The outcome of an answer that went out, with what is to be said of it."""
        return outcome
