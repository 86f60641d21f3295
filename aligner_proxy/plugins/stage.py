"""Stage: one concern of a correction, for whole answers and for answers that are still being written.

A driver takes an answer through its stages, always in the same order, and asks each of them four questions:

    admit    New text has come and is not judged yet. May it be corrected? A stage may stop the correction, or hold
             the answer until its end.
    release  Text was judged, edited and passed by the gate, and is about to go out. What should go out instead?
    finalize All text is judged, and the rest has not gone out. What is delivered? If nothing of a growing answer
             went out yet, a stage holds it instead, and finalizes the whole.
    report   All text went out. What do headers, metrics and the audit log say about it?

A whole answer is treated as a stream that ends at once: it is admitted once, released once from its first character to
its last, finalized and reported. So each concern is written only once, and a stage need not know whether its answer
streams. If it can do better with the whole, `Outgoing.is_whole` tells it that this is all. The gateway's own stages are
in `pipeline/stages/`; plugins add others (`Extension.stages`).

There is no `begin` and no `aclose`. A stage recognises the beginning by the first `admit`. The driver owns what must be
closed (the engine's session), and closes it even if a stage fails. Any exception of a stage ends the correction with
the reason of that error, and the policy decides what the client gets.

The drivers are `Pipeline.align` for whole answers and `AnswerPart` for growing ones (pipeline/answer_part.py).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from aligner_proxy.text.structure import Segment
from aligner_proxy.types import EditorUse, Exchange, Finding, JudgeUse, Outcome, Policy, SegmentScore, Status

_Read = TypeVar("_Read")


class PolicyEditor(Protocol):
    """The editor that a policy names, for a stage's questions about one answer."""

    async def ask(
        self,
        messages: Sequence[Mapping[str, str]],
        read: Callable[[str], _Read],
        *,
        tokens: int,
        form: Mapping[str, Any] | None = None,
    ) -> tuple[_Read | None, EditorUse]:
        """Ask the editor; return what `read` makes of the reply, and the cost.

        The first is None if the call fails or the reply is unusable, for which `read` raises `InvalidOutput`. A reply
        has at most `tokens` tokens; `form` is its JSON schema.
        """


class PolicyJudge(PolicyEditor, Protocol):
    """The judge that a policy names, for a stage's questions about one answer; it is asked like an editor.

    `ask` raises `JudgeFailed` where the call fails and the policy blocks then.
    """

    @property
    def is_decision_model(self) -> bool:
        """Whether it answers the questions of `form` with verdicts by number, in place of writing a reply."""

    @property
    def may_clear(self) -> bool:
        """Whether its verdict counts where the gateway's own is certain, too."""


class StageModels(Protocol):
    """The models that stages may ask about an answer. By default there are none."""

    def open_editor(self, answer: AnswerSoFar) -> PolicyEditor | None:
        """The editor of the answer's policy; None if it names none."""
        return None

    def open_judge(self, answer: AnswerSoFar) -> PolicyJudge | None:
        """The judge of the answer's policy; None if it names none that answers a stage's questions."""
        return None


class _NoModels(StageModels):
    """No models: both methods return None."""


NO_MODELS = _NoModels()


@dataclass(frozen=True, slots=True)
class AnswerSoFar:
    """An answer as received so far."""

    exchange: Exchange
    """Facts about the answer; its text may have grown since."""
    text: str
    """The text so far; empty if there is none."""
    policy: Policy
    deadline: float = 0.0
    """Time by which the correction must be done, in seconds of `time.monotonic()`."""
    is_whole: bool = True
    """Whether all of it has come and nothing of it has gone out."""
    has_ended: bool = True
    is_part: bool = False
    """Whether it is a part of a longer answer, so that it cannot be assessed alone."""
    is_structured: bool = False
    """Whether a program reads it."""
    is_one_of_several: bool = False
    """Whether its answer may have other texts, so that this one cannot show what remains of the answer."""
    is_withheld: bool = False
    """Whether an earlier text of its answer waits for the end, and this one has to wait, too."""
    is_stopped: bool = False
    """Whether its correction was given up, so that not all of it was judged."""
    sent_chars: int = 0
    """Number of decided characters; the output for them has gone out."""
    segments: Sequence[Segment] = ()
    """The segments of a growing answer."""
    verdicts: Sequence[SegmentScore] = ()
    """The verdicts on the first of these segments."""
    models: StageModels = NO_MODELS

    @property
    def editor(self) -> PolicyEditor | None:
        """The editor that a stage may ask about the answer until the deadline; None if the policy names none."""
        return self.models.open_editor(self)

    @property
    def judge(self) -> PolicyJudge | None:
        """The judge that a stage may ask; None if the policy names none, or a guard, which knows its own questions."""
        return self.models.open_judge(self)


@dataclass(frozen=True, slots=True)
class Stop:
    """Ends the correction: undecided text goes out unchanged, or not at all."""

    status: Status
    reason: str


@dataclass(frozen=True, slots=True)
class Hold:
    """Holds the answer until its end. If nothing of it has gone out, it is then corrected as a whole.

    Otherwise the rest is judged as before, but goes out only at the end, or as soon as no stage holds it.
    """


@dataclass(frozen=True, slots=True)
class Outgoing:
    """Text that is about to go out for a range of the answer that begins at `start`."""

    text: str
    start: int = 0
    is_whole: bool = True
    """Whether it replaces the whole answer, or a whole text in it."""
    is_original: bool = False
    """Whether it is the upstream's text, unchanged."""
    has_whole_segments: bool = True
    """Whether it begins and ends between segments, not inside one."""
    segments: Sequence[Segment] = ()
    """The segments of a growing answer that begin in the range."""
    removed_segments: Collection[int] = ()
    """Indexes into `segments` of those of which nothing is left."""
    findings: tuple[Finding, ...] = ()
    """What stages found in it and what they replaced it with; positions refer to the answer."""
    editor: EditorUse | None = None
    """What the stages' use of an editor cost."""
    judge: JudgeUse | None = None
    """What stages asked a judge, and what that cost."""

    def with_text(self, text: str) -> Outgoing:
        """This range with another text; the same object if the text is the same."""
        return self if text == self.text else replace(self, text=text, is_original=False)


LAST = 100
"""Default position of a stage."""


class Stage(Protocol):
    """One concern of the correction of one answer. Every default changes nothing; a stage overrides what it needs."""

    order: int = LAST
    """Position: lower ones come first.

    The gateway's own are eligibility 0, list numbers 10, refusal text 30, reports 40 and language 50. A stage that
    changes the text of an answer belongs before the refusal text.
    """

    async def admit(self, answer: AnswerSoFar) -> Stop | Hold | None:
        """A `Stop` or `Hold` if new text may not be corrected yet or at all; None if it may.

        Called before new text is judged, and once more when everything is judged.
        """
        return None

    async def release(self, outgoing: Outgoing, answer: AnswerSoFar) -> Outgoing:
        """What goes out for a text that was judged."""
        return outgoing

    async def finalize(self, outcome: Outcome, answer: AnswerSoFar) -> Outcome:
        """The final outcome of an answer that is completely judged but has not completely gone out.

        The same object if this stage wants nothing else.
        """
        return outcome

    def report(self, outcome: Outcome, answer: AnswerSoFar) -> Outcome:
        """The outcome of an answer that went out, with this stage's report added."""
        return outcome
