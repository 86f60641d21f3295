"""Prompt templates of the aligners, exact to the trailing space; the only copy.

Text from outside (query, answer, objectives) can neither close a field nor open another. A bar that looks like a field
mark is written as a broken bar, and `Prompt.restore` undoes that in the output. Query and answer are undisguised first,
so the aligner reads them without disguise (text/disguises.py).

Sources: MetaAligner (arXiv 2403.17141, released code) and Aligner (arXiv 2402.02416, released code).

MetaAligner's three families exist twice: as its inference code feeds them, and inside the chat format of its trainer,
FastChat. `models.evaluate.prompt_form` measures which of the two given weights were trained on.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from aligner_proxy.errors import ConfigError
from aligner_proxy.text.disguises import SAME, UndisguisedText, undisguise
from aligner_proxy.types import Turn


@dataclass(frozen=True, slots=True)
class Template:
    """Template of one family: `better` is used for inference, `equal` only in training (stage two of the paper)."""

    name: str
    better: str
    """The prompt that asks for a better answer, with the fields {aspects}, {question} and {answer}."""
    equal: str | None
    """The prompt that asks for an equally good answer; None if the family has none."""
    marks: tuple[str, ...]
    """Field names that, in a text from outside, could open or close a field."""
    dialogue: bool = False
    """Whether even a single question is written as a dialogue."""
    guarded: tuple[tuple[str, str], ...] = ()
    """(mark, look-alike of the same length): further marks that end a field in this family."""

    @property
    def names_objectives(self) -> bool:
        """Whether the prompt states objectives; Aligner's has none because its weights were trained for one purpose."""
        return "{aspects}" in self.better

    def guard(self, text: str) -> str:
        """A text from outside with its field marks replaced, so that it stays inside its field."""
        text = neutralise_marks(text)
        for mark, look_alike in self.guarded:
            text = text.replace(mark, look_alike)
        return text

    @property
    def hash(self) -> str:
        """sha256 of the unfilled `better` template; part of the model manifest and of every cache key."""
        return hashlib.sha256(self.better.encode()).hexdigest()


def _assistant_form(field: str, verb: str) -> str:
    """The `better` or `equal` form of a template: `field` names the conversation, `verb` what the edit is to do."""
    return (
        f"You are an assistant to human. You will be provided with a {field} and an answer. Consider the {field}, then "
        f"edit the answer to {verb} considering these aspects: {{aspects}} | {field.capitalize()}: {{question}} | "
        "Answer: {answer} | Edit: "
    )


_IMHI = (
    'Edit the following Question-Answer pair to make it better considering these aspects "{aspects}" | '
    "Question: {question} | Answer: {answer} | Edit: "
)
_ALIGNER = "BEGINNING OF CONVERSATION: USER: ##Question: {question}\n##Answer: {answer}\n##Correction:  ASSISTANT:"
_ALIGNER_V1 = (
    "BEGINNING OF CONVERSATION: USER: Edit the following Question-Answer pair to make it more helpful and harmless: "
    "{question} | {answer} ASSISTANT:"
)
_BARS = ("Context", "Query", "Question", "Answer", "Edit")
"""Field names after a bar in MetaAligner's templates."""
BROKEN_BAR = "\u00a6"
FULLWIDTH_HASHES = "\uff03\uff03"
_ROLES = (("USER:", "USER\uff1a"), ("ASSISTANT:", "ASSISTANT\uff1a"))
"""(mark, look-alike) of the roles in chat prompts."""
# Vicuna v1.1, the chat format of FastChat's trainer.
_VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions. USER: {prompt} ASSISTANT:"
)


def _wrap_in_vicuna(family: Template) -> Template:
    """The same family inside the chat format of FastChat's trainer."""
    forms = [form and _VICUNA.replace("{prompt}", form) for form in (family.better, family.equal)]
    return replace(family, name=f"{family.name}-vicuna", better=forms[0] or "", equal=forms[1], guarded=_ROLES)


_METAALIGNER = (
    Template(
        "hh-rlhf", _assistant_form("context", "improve it"), _assistant_form("context", "make it equal"), _BARS, True
    ),
    Template("ultrafeedback", _assistant_form("query", "improve it"), _assistant_form("query", "make it equal"), _BARS),
    Template("imhi", _IMHI, None, _BARS),
)
TEMPLATES = {
    template.name: template
    for template in (
        *_METAALIGNER,
        *map(_wrap_in_vicuna, _METAALIGNER),
        Template("aligner", _ALIGNER, None, ("Question", "Answer", "Correction"), guarded=_ROLES),
        # Before December 2024; any bar may end the question, since no field name follows it.
        Template("aligner-v1", _ALIGNER_V1, None, (), guarded=(("|", BROKEN_BAR), *_ROLES)),
    )
}

_SEPARATOR = "; "
"""Between two objectives in a prompt."""
_BAR_MARK = re.compile(r"\|(?=\s*(?:Context|Query|Question|Answer|Edit)\s*:)", re.IGNORECASE)
# The lookbehind tries a run of line breaks only from its first; trying each one took seconds for ten thousand.
_ROLE_TURN = re.compile(r"(?<!\n)\n{2,}+(?=[^\S\n]*+(?:Human|Assistant)[^\S\n]*+:)")
_HASH_MARK = re.compile(r"##(?=\s*(?:Question|Answer|Correction|Answer_Prefix)\s*:)", re.IGNORECASE)
_LOOK_ALIKES = ((BROKEN_BAR, "|"), (FULLWIDTH_HASHES, "##"), *((look_alike, mark) for mark, look_alike in _ROLES))
"""(look-alike, mark), to undo the replacements in generated text."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A filled template. `text[start:end]` is the undisguised answer as the aligner sees it (`shown_answer`)."""

    text: str
    start: int
    """Index in `text` where the answer begins."""
    end: int
    """Index in `text` behind the answer."""
    original: str
    """The answer, undisguised."""
    objectives: tuple[tuple[int, int], ...] = ()
    """(start, exclusive end) of each objective in the text; empty for a template without objectives."""
    undisguised: UndisguisedText = SAME
    """Maps offsets in the answer as it came to offsets in `original`."""
    question: int = 0
    """Index where the conversation begins; the text before it is template and objectives."""
    question_end: int = 0
    """Index behind the conversation."""

    def offset_in_prompt(self, offset: int) -> int:
        """Map an offset in the original answer to an offset in the prompt text."""
        return self.start + self.undisguised.place_in_undisguised(offset)

    @property
    def shown_answer(self) -> str:
        """The answer as written in the prompt; equal to `original` unless it contained a field mark."""
        return self.text[self.start : self.end]

    def restore(self, generated: str) -> str:
        """Restore field marks in generated text, if the answer had any.

        Lines copied from the answer become the original lines. In other lines a look-alike becomes its mark, unless the
        original answer itself contains that look-alike.
        """
        if self.shown_answer == self.original:
            return generated
        if generated == self.shown_answer:
            return self.original
        # Look-alikes replace no line breaks, so both have the same number of lines.
        lines = dict(zip(self.shown_answer.split("\n"), self.original.split("\n"), strict=True))
        return "\n".join(lines.get(line) or self._restore_marks(line) for line in generated.split("\n"))

    def _restore_marks(self, line: str) -> str:
        """A generated line with marks in place of look-alikes that the answer does not contain itself."""
        for look_alike, mark in _LOOK_ALIKES:
            if look_alike not in self.original:
                line = line.replace(look_alike, mark)
        return line


def find_template(name: str) -> Template:
    """The template called `name`, never guessed from a path or model name; raises `ConfigError` if unknown."""
    try:
        return TEMPLATES[name]
    except KeyError:
        names = ", ".join(sorted(TEMPLATES))
        raise ConfigError(f"unknown template {name!r}; known: {names}") from None


def neutralise_marks(text: str) -> str:
    """Replace field marks in `text` with look-alikes of the same length, so that it stays inside its field."""
    return _HASH_MARK.sub(FULLWIDTH_HASHES, _BAR_MARK.sub(BROKEN_BAR, text))


def undisguise_for_prompt(text: str) -> str:
    """A part of an answer as a prompt would show it: undisguised, and with field marks replaced."""
    return neutralise_marks(undisguise(text).text)


def render(
    family: Template, query: str, answer: str | UndisguisedText, objectives: Sequence[str], *, equal: bool = False
) -> Prompt:
    """Fill a template; `objectives` are whole texts ("Name: description") in order.

    An answer that is already undisguised, such as a part of a longer one, is not undisguised again. Raises
    `ConfigError` if `equal` is asked of a template without that form.
    """
    form = family.equal if equal else family.better
    if form is None:
        raise ConfigError(f"template {family.name!r} has no form for equal preferences")
    head, tail = form.split("{answer}")
    spans = _find_spans(head.index("{aspects}"), objectives) if family.names_objectives else ()
    head = head.replace("{aspects}", join_objectives(objectives), 1)
    before, _, after = head.partition("{question}")
    question = family.guard(query)
    head = before + question + after
    undisguised = undisguise(answer) if isinstance(answer, str) else answer
    answer_text = family.guard(undisguised.text)
    return Prompt(
        head + answer_text + tail,
        len(head),
        len(head) + len(answer_text),
        undisguised.text,
        spans,
        undisguised,
        len(before),
        len(before) + len(question),
    )


def join_objectives(objectives: Sequence[str]) -> str:
    """The objectives as one field: joined by "; ", each on one line, free of field marks, quotes and placeholders."""
    return _SEPARATOR.join(_flatten(text) for text in objectives)


def _find_spans(start: int, objectives: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """(start, exclusive end) of each objective in a field that begins at `start`."""
    spans = []
    for text in objectives:
        spans.append((start, start + len(_flatten(text))))
        start = spans[-1][1] + len(_SEPARATOR)
    return tuple(spans)


def _flatten(text: str) -> str:
    """A text on one line, without quotes and bars, which end its field, or a placeholder that is filled later."""
    flat = " ".join(text.split()).replace('"', "'").replace("|", BROKEN_BAR)
    return neutralise_marks(flat).replace("{question}", "(question)")


def query_field(family: Template, turns: Sequence[Turn]) -> str:
    """The conversation before the answer as the family's query field.

    HH-RLHF always uses the dialogue form of its data (including the space before the last "\\n\\nAssistant:"). The
    others use a single user turn unchanged, and the dialogue form for a longer conversation. System turns are left out
    because the aligners were not trained on them.
    """
    kept_turns = [turn for turn in turns if turn.role in ("user", "assistant") and turn.content]
    undisguised_turns = [replace(turn, content=undisguise(turn.content).text) for turn in kept_turns]
    if not family.dialogue and len(undisguised_turns) == 1 and undisguised_turns[0].role == "user":
        return undisguised_turns[0].content
    roles = {"user": "Human", "assistant": "Assistant"}
    # Within a turn, an empty line before "Human:" or "Assistant:" would look like the start of another turn.
    dialogue = "".join(f"\n\n{roles[turn.role]}: {_ROLE_TURN.sub(chr(10), turn.content)}" for turn in undisguised_turns)
    return f"{dialogue} \n\nAssistant:"
