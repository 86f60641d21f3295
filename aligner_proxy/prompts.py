"""Prompt templates of the aligners, exact to the trailing space; the only copy.

Text from outside (query, answer, objectives) can neither close a field nor open another: a bar that would look like a
field mark is written as a broken bar, and `Prompt.restore` undoes that in the output. Query and answer are folded
first: what the aligner reads is without disguise (text/folding.py).
Sources: MetaAligner (arXiv 2403.17141, released code) and Aligner (arXiv 2402.02416, released code).

MetaAligner's three families exist twice: as its inference code feeds them, and inside the chat form of its trainer,
FastChat. `models.evaluate.prompt_form` measures which of them released weights know.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from aligner_proxy.errors import ConfigError
from aligner_proxy.text.folding import SAME, Folded, fold
from aligner_proxy.types import Turn


@dataclass(frozen=True, slots=True)
class Template:
    """Template of one family: `better` is used at inference, `equal` only in training (the paper's stage two)."""

    name: str
    better: str
    equal: str | None
    marks: tuple[str, ...]
    """Strings that would open or close a field inside a text from outside."""
    dialogue: bool = False
    """Whether a single question is also written as a dialogue."""
    guarded: tuple[tuple[str, str], ...] = ()
    """(mark, look-alike of the same length): further ends of a field in this family."""

    @property
    def names_objectives(self) -> bool:
        """Whether the prompt states objectives; Aligner has one purpose, which its weights know."""
        return "{aspects}" in self.better

    def guard(self, text: str) -> str:
        """A text from outside, made safe for a field."""
        text = neutralise(text)
        for mark, safe in self.guarded:
            text = text.replace(mark, safe)
        return text

    @property
    def hash(self) -> str:
        """sha256 of the unfilled better form; part of the model manifest and of every cache key."""
        return hashlib.sha256(self.better.encode()).hexdigest()


def _assistant(field: str, verb: str) -> str:
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
BROKEN_BAR = "\u00a6"
FULLWIDTH_HASHES = "\uff03\uff03"
_ROLES = (("USER:", "USER\uff1a"), ("ASSISTANT:", "ASSISTANT\uff1a"))
# Vicuna v1.1, the form of FastChat's trainer.
_VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions. USER: {prompt} ASSISTANT:"
)


def _wrapped(family: Template) -> Template:
    forms = [form and _VICUNA.replace("{prompt}", form) for form in (family.better, family.equal)]
    return replace(family, name=f"{family.name}-vicuna", better=forms[0] or "", equal=forms[1], guarded=_ROLES)


_METAALIGNER = (
    Template("hh-rlhf", _assistant("context", "improve it"), _assistant("context", "make it equal"), _BARS, True),
    Template("ultrafeedback", _assistant("query", "improve it"), _assistant("query", "make it equal"), _BARS),
    Template("imhi", _IMHI, None, _BARS),
)
TEMPLATES = {
    t.name: t
    for t in (
        *_METAALIGNER,
        *map(_wrapped, _METAALIGNER),
        Template("aligner", _ALIGNER, None, ("Question", "Answer", "Correction"), guarded=_ROLES),
        # Before December 2024; any bar may end the question, since no field name follows it.
        Template("aligner-v1", _ALIGNER_V1, None, (), guarded=(("|", BROKEN_BAR), *_ROLES)),
    )
}

_SEPARATOR = "; "
_BAR_MARK = re.compile(r"\|(?=\s*(?:Context|Query|Question|Answer|Edit)\s*:)", re.IGNORECASE)
# A run of line breaks is looked at from its first one only: tried from each of them, ten thousand took seconds.
_ROLE_TURN = re.compile(r"(?<!\n)\n{2,}+(?=[^\S\n]*+(?:Human|Assistant)[^\S\n]*+:)")
_HASH_MARK = re.compile(r"##(?=\s*(?:Question|Answer|Correction|Answer_Prefix)\s*:)", re.IGNORECASE)
_LOOK_ALIKES = ((BROKEN_BAR, "|"), (FULLWIDTH_HASHES, "##"), *((safe, mark) for mark, safe in _ROLES))


@dataclass(frozen=True, slots=True)
class Prompt:
    """A filled template. `text[start:end]` is the answer as the aligner sees it (`shown`, as long as it is folded)."""

    text: str
    start: int
    end: int
    original: str
    """The answer, folded."""
    objectives: tuple[tuple[int, int], ...] = ()
    """Position of each objective in the text (start and exclusive end); empty for a template that names none."""
    folded: Folded = SAME
    question: int = 0
    """Where the conversation begins: what stands before it is the template's and the objectives'."""

    def place(self, at: int) -> int:
        """Where a place of the answer, as it was given, lies in the text."""
        return self.start + self.folded.place_in_folded(at)

    @property
    def shown(self) -> str:
        """The answer inside the prompt; equal to the original unless it held a field mark."""
        return self.text[self.start : self.end]

    def restore(self, generated: str) -> str:
        """Undo the neutralising of field marks in generated text, if the answer had any.

        Copied lines become the original lines; elsewhere a look-alike becomes its mark unless the answer has both.
        """
        if self.shown == self.original:
            return generated
        if generated == self.shown:
            return self.original
        lines = dict(zip(self.shown.split("\n"), self.original.split("\n"), strict=True))
        return "\n".join(lines.get(line) or self._marked(line) for line in generated.split("\n"))

    def _marked(self, line: str) -> str:
        for safe, mark in _LOOK_ALIKES:
            if safe not in self.original:
                line = line.replace(safe, mark)
        return line


def template(name: str) -> Template:
    """The family called `name`; never guessed from a path or a model name."""
    try:
        return TEMPLATES[name]
    except KeyError:
        known = ", ".join(sorted(TEMPLATES))
        raise ConfigError(f"unknown template {name!r}; known: {known}") from None


def neutralise(text: str) -> str:
    """Write field marks in `text` with look-alikes of the same length, so that it stays inside its field."""
    return _HASH_MARK.sub(FULLWIDTH_HASHES, _BAR_MARK.sub(BROKEN_BAR, text))


def as_read(text: str) -> str:
    """A part of an answer as it would stand in a prompt."""
    return neutralise(fold(text).text)


def render(
    family: Template, query: str, answer: str | Folded, objectives: Sequence[str], *, equal: bool = False
) -> Prompt:
    """Fill a template. `objectives` are whole texts ("Name: description"), kept in their order.

    An answer that is folded already, as a part of a longer one is, stays as it is.
    """
    form = family.equal if equal else family.better
    if form is None:
        raise ConfigError(f"template {family.name!r} has no form for equal preferences")
    head, tail = form.split("{answer}")
    spans = _spans(head.index("{aspects}"), objectives) if family.names_objectives else ()
    head = head.replace("{aspects}", aspects(objectives), 1)
    before, _, after = head.partition("{question}")
    head = before + family.guard(query) + after
    folded = fold(answer) if isinstance(answer, str) else answer
    shown = family.guard(folded.text)
    return Prompt(head + shown + tail, len(head), len(head) + len(shown), folded.text, spans, folded, len(before))


def aspects(objectives: Sequence[str]) -> str:
    """The objectives as one field: joined by "; ", each on one line, free of field marks, quotes and placeholders."""
    return _SEPARATOR.join(_one_line(text) for text in objectives)


def _spans(start: int, objectives: Sequence[str]) -> tuple[tuple[int, int], ...]:
    spans = []
    for text in objectives:
        spans.append((start, start + len(_one_line(text))))
        start = spans[-1][1] + len(_SEPARATOR)
    return tuple(spans)


def _one_line(text: str) -> str:
    flat = " ".join(text.split()).replace('"', "'").replace("|", BROKEN_BAR)
    return neutralise(flat).replace("{question}", "(question)")


def query(family: Template, turns: Sequence[Turn]) -> str:
    """The conversation before the answer as the family's query field.

    HH-RLHF always takes the dialogue form of its data (space before the last "\\n\\nAssistant:" included); the others
    take a single user turn as it is and a longer conversation as a dialogue. System turns are not part of what the
    aligners were trained to read and are left out.
    """
    said = [turn for turn in turns if turn.role in ("user", "assistant") and turn.content]
    spoken = [replace(turn, content=fold(turn.content).text) for turn in said]
    if not family.dialogue and len(spoken) == 1 and spoken[0].role == "user":
        return spoken[0].content
    roles = {"user": "Human", "assistant": "Assistant"}
    dialogue = "".join(f"\n\n{roles[turn.role]}: {_ROLE_TURN.sub(chr(10), turn.content)}" for turn in spoken)
    return f"{dialogue} \n\nAssistant:"
