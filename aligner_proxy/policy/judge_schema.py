"""Schema of `judge`: the model that gives a second opinion on segments."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from aligner_proxy.policy.yaml_file import Block
from aligner_proxy.types import DOUBT_BAND, NO_JUDGE, AskAbout, GuardForm, Judge, JudgeKind

_Group = Annotated[str, Field(min_length=1, max_length=200)]


class JudgeBlock(Block):
    """A model that gives a second opinion; exactly one of chat, guard, decisions and tokens names it."""

    chat: _Group | None = None
    """A model group of the LiteLLM file with a strong chat model; one call asks about all doubtful segments."""
    guard: _Group | None = None
    """A model group with a guard model; each doubtful segment is one call."""
    decisions: _Group | None = None
    """A model group with a decision model (LiteLLM's /v1/decisions)."""
    tokens: _Group | None = None
    """A token classifier that the engine has beside the aligner (aligner.judges); one call asks about all doubtful
    segments."""
    form: GuardForm | None = None
    """The family of the guard model, which says how it is asked and how it answers."""
    ask: AskAbout = AskAbout.DOUBT
    """doubt: about unflagged segments that score close to the threshold; flagged: about flagged ones, before they are
    edited; all: about every segment."""
    band: Annotated[float, Field(gt=0, le=50, strict=True, allow_inf_nan=False)] = DOUBT_BAND
    """With `ask: doubt`: how far below the threshold a segment may score, in nats, to be asked about."""
    answer_band: Annotated[float, Field(ge=0, le=50, strict=True, allow_inf_nan=False)] | None = None
    """With `ask: doubt`, except in `stream: sentence`: how far below the threshold the score of an answer may lie, in
    nats, for the judge to be asked about its highest third of segments, too. With 0, it is not asked about answers. A
    head of the aligner may score whole answers: then that score counts, raised by what the question asks for, the judge
    of its objective is asked, and the default is 2.2. Otherwise the mean of the segments counts, and the default is 0.
    """

    @model_validator(mode="after")
    def _check_group(self) -> JudgeBlock:
        """Refuse blocks that do not name exactly one model, a guard without `form`, and `form` without a guard."""
        # The kinds of judges have the names of the keys.
        set_keys = [kind.value for kind in JudgeKind if getattr(self, kind.value) is not None]
        if len(set_keys) != 1:
            raise ValueError("must name one model: chat: GROUP, guard: GROUP, decisions: GROUP or tokens: NAME")
        if (self.guard is None) != (self.form is None):
            forms = ", ".join(form.value for form in GuardForm)
            raise ValueError(f"guard and form belong together; form is one of {forms}")
        return self


def _parse_judge(value: object) -> object:
    """Parse the value of `judge` (`off` or a block) into a `Judge`; raises `ValueError`."""
    # YAML 1.1 reads the bare word `off` as false.
    if value is False or value == "off":
        return NO_JUDGE
    if isinstance(value, Judge):
        return value
    if not isinstance(value, dict):
        raise ValueError("must be off, or a block such as {chat: GROUP}")  # noqa: TRY004 - pydantic takes ValueError
    block = JudgeBlock.model_validate(value)
    # The one key that names a model also tells the judge's kind.
    kind = next(kind for kind in JudgeKind if getattr(block, kind.value) is not None)
    group = getattr(block, kind.value)
    return Judge(kind, group, form=block.form, ask=block.ask, band=block.band, answer_band=block.answer_band)


JudgeSetting = Annotated[Judge, BeforeValidator(_parse_judge, json_schema_input_type=Literal["off"] | JudgeBlock)]
"""The values that a policies file may have for `judge`."""
