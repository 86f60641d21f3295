"""Schema of `editor` and `judge`: the models that rewrite flagged segments, and that give a second opinion on segments.

A value of `editor` is parsed into one word: `local`, `upstream`, or `model:GROUP` for the block `{model: GROUP}`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from aligner_proxy.policy.yaml_file import Block, suggest_name
from aligner_proxy.types import (
    DOUBT_BAND,
    EDITOR_GROUP_PREFIX,
    LOCAL_EDITOR,
    NO_JUDGE,
    UPSTREAM_EDITOR,
    AskAbout,
    GuardForm,
    Judge,
    JudgeKind,
)

_MAX_GROUP_CHARS = 200
_EDITOR_WORDS = (LOCAL_EDITOR, UPSTREAM_EDITOR)
_MODEL = "model"
_EDITOR_FORMS = "must be local, upstream, or a block {model: GROUP} with a model group of the LiteLLM file"
_Group = Annotated[str, Field(min_length=1, max_length=_MAX_GROUP_CHARS)]


class EditorBlock(Block):
    """A separate model group that edits."""

    model: _Group
    """A model group of the LiteLLM file, by its model_name."""


def _parse_editor(value: object) -> object:
    """Return the value of `editor` as one word: {model: strong} becomes "model:strong". Raises `ValueError`."""
    if isinstance(value, Mapping):
        return EDITOR_GROUP_PREFIX + _read_group(value)
    if not isinstance(value, str):
        raise ValueError(_EDITOR_FORMS)  # noqa: TRY004 - pydantic takes ValueError alone
    names_group = value.startswith(EDITOR_GROUP_PREFIX) and value != EDITOR_GROUP_PREFIX
    if value in _EDITOR_WORDS or names_group:
        return value
    raise ValueError(f"{_EDITOR_FORMS}; {suggest_name(value, _EDITOR_WORDS)}")


def _read_group(block: Mapping[object, object]) -> str:
    """Check the block {model: GROUP} and return the group; raises `ValueError`."""
    extra_key = next((name for name in block if name != _MODEL), None)
    if extra_key is not None:
        raise ValueError(f"unknown key {extra_key!r}; the only one is {_MODEL}")
    group = block.get(_MODEL)
    if not isinstance(group, str) or not group.strip():
        raise ValueError(f"{_MODEL} must name a model group of the LiteLLM file")
    if len(group) > _MAX_GROUP_CHARS:
        raise ValueError(f"{_MODEL} has {len(group):,} characters; shorten it to at most {_MAX_GROUP_CHARS}")
    return group.strip()


Editor = Annotated[
    str, BeforeValidator(_parse_editor, json_schema_input_type=Literal["local", "upstream"] | EditorBlock)
]
"""The values that a policies file may have for `editor`."""


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
