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

_Result = TypeVar("_Result")


class PolicyEditor(Protocol):
    """The editor that a policy names, for a stage's questions about one answer."""

    async def ask(
        self,
        messages: Sequence[Mapping[str, str]],
        read_text: Callable[[str], _Result],
        *,
        max_tokens: int,
        response_format: Mapping[str, Any] | None = None,
    ) -> tuple[_Result | None, EditorUse]:
        """Ask the editor; return (the result of `read_text` for the text of the reply, cost of the call).

        `read_text` raises `InvalidOutput` for an unusable text. The result is None then, and if the call fails. The
        reply has at most `max_tokens` tokens, and the `response_format` (as in the OpenAI API) if the model supports
        formats.
        """


class PolicyJudge(PolicyEditor, Protocol):
    """The judge that a policy names, for a stage's questions about one answer; it is asked like an editor.

    `ask` raises `JudgeFailed` if the call fails and the policy blocks the answer then.
    """

    @property
    def is_decision_model(self) -> bool:
        """Whether the judge answers `response_format["questions"]`, and its reply has a verdict for each number."""

    @property
    def may_clear(self) -> bool:
        """Whether the judge's verdict counts even if the gateway's own verdict is certain."""


class StageModels(Protocol):
    """Opens the models that stages may ask about an answer. By default there are none."""

    def open_editor(self, answer: AnswerSoFar) -> PolicyEditor | None:
        """The editor of the answer's policy; None if the policy names none."""
        return None

    def open_judge(self, answer: AnswerSoFar) -> PolicyJudge | None:
        """The judge of the answer's policy; None if the policy names none that answers questions of stages."""
        return None


class _NoModels(StageModels):
    """No models: both methods return None."""


NO_MODELS = _NoModels()


@dataclass(frozen=True, slots=True)
class AnswerSoFar:
    """An answer as received so far."""

    exchange: Exchange
    """Everything known about the answer besides its text, which may be shorter here than `text`."""
    text: str
    """The text so far; empty if there is none."""
    policy: Policy
    deadline: float = 0.0
    """Time by which the correction must be done, in seconds of `time.monotonic()`."""
    is_whole: bool = True
    """Whether all of the text has come and nothing of it has gone out."""
    has_ended: bool = True
    """Whether all of the text has come."""
    is_part: bool = False
    """Whether the text is a part of a longer text, so that it cannot be assessed alone."""
    is_structured: bool = False
    """Whether a program reads the answer."""
    is_one_of_several: bool = False
    """Whether the answer may have other texts, so that this text cannot show what remains of the answer."""
    is_withheld: bool = False
    """Whether an earlier text of the answer waits for the answer's end, so that this text has to wait, too."""
    is_stopped: bool = False
    """Whether the correction was given up, so that not all of the text was judged."""
    sent_chars: int = 0
    """Number of first characters of the text for which the corrected text has gone out."""
    segments: Sequence[Segment] = ()
    """The segments of a growing answer."""
    verdicts: Sequence[SegmentScore] = ()
    """The verdicts on the first of these segments."""
    models: StageModels = NO_MODELS
    """Opens `editor` and `judge`."""

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
    """Text that is about to go out for a range of the answer."""

    text: str
    start: int = 0
    """Offset of the range in the answer."""
    is_whole: bool = True
    """Whether the range is the whole answer, or a whole text in it."""
    is_original: bool = False
    """Whether `text` is the upstream's text, unchanged."""
    has_whole_segments: bool = True
    """Whether the range begins and ends between segments, not inside one."""
    segments: Sequence[Segment] = ()
    """The segments of a growing answer that begin in the range."""
    removed_segments: Collection[int] = ()
    """Indexes in `segments`, from 0, of those of which nothing is left."""
    findings: tuple[Finding, ...] = ()
    """The problems that stages found in the text, with their replacements; offsets refer to the answer."""
    editor: EditorUse | None = None
    """The stages' use of an editor; None if they used none."""
    judge: JudgeUse | None = None
    """The stages' use of a judge; None if they used none."""

    def with_text(self, text: str) -> Outgoing:
        """The same range with another text; the same object if the text is the same."""
        return self if text == self.text else replace(self, text=text, is_original=False)


LAST = 100
"""Default position of a stage."""


class Stage(Protocol):
    """One concern of the correction of one answer. Every default changes nothing; a stage overrides what it needs."""

    order: int = LAST
    """Position among the stages: lower numbers come first.

    The gateway's own are eligibility 0, list numbers 10, refusal text 30, reports 40 and language 50. A stage that
    changes the text of an answer belongs before the refusal text.
    """

    async def admit(self, answer: AnswerSoFar) -> Stop | Hold | None:
        """`Stop` if new text may not be corrected at all, `Hold` if not before the answer's end, None if it may now.

        Called before new text is judged, and again with its verdicts, before it goes out.
        """
        return None

    async def release(self, outgoing: Outgoing, answer: AnswerSoFar) -> Outgoing:
        """Return what goes out in place of `outgoing`, which was judged; the same object to change nothing."""
        return outgoing

    async def finalize(self, outcome: Outcome, answer: AnswerSoFar) -> Outcome:
        """Return the final outcome of an answer of which all is judged, but some has not gone out yet.

        The same object to change nothing.
        """
        return outcome

    def report(self, outcome: Outcome, answer: AnswerSoFar) -> Outcome:
        """Return the outcome of an answer that went out, with this stage's report added."""
        return outcome
