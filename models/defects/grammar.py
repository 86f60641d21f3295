"""Small grammars that make many different sentences.

A template is a text in which `[a|b]` is a choice (choices nest) and `{name}` a slot: "[Well|So], {topic} is {word}."
may become "So, jazz is great.". The caller gives some slots (topic, sentence), the grammar's word lists the others. The
same random state makes the same sentence.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

_TRIES = 40
_CHOICE = re.compile(r"\[([^\[\]]*\|[^\[\]]*)\]")
_SLOT = re.compile(r"\{(\w+)\}")
_ARTICLE = re.compile(r"\b([Aa]) (?=(?!one\b|uni|use|usu|eu)[aeiou])")
_PROPER = frozenset({"i", "i'm", "i've", "i'll"})


@dataclass(frozen=True, slots=True)
class Grammar:
    """Templates and the word lists of their slots."""

    templates: tuple[str, ...]
    slots: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def make(self, rng: Random, topic: str = "", about_topic: bool | None = None) -> str:
        """One sentence; `about_topic` True takes only templates that name the topic, False only those that do not."""
        slots = {**self.slots, "topic": [topic]}
        text = ""
        for _ in range(_TRIES):
            text = expand(rng, rng.choice(self.list_templates(topic, about_topic)), slots)
            if not (about_topic and topic) or topic.lower() in text.lower():
                break  # a template may name the topic in one of its choices only
        return text

    def list_templates(self, topic: str = "", about_topic: bool | None = None) -> list[str]:
        """The templates that name the topic if `about_topic` is True, the others if it is False, all if it is None.

        Without a topic, no template may name it. If none fits, all templates are returned.
        """
        must_name_topic = about_topic if topic else False
        if must_name_topic is None:
            return list(self.templates)
        fitting = [template for template in self.templates if ("{topic}" in template) == must_name_topic]
        return fitting or list(self.templates)

    def count_derivations(self) -> int:
        """How many different sentences there are, with one topic."""
        return sum(_count_derivations(template, self.slots) for template in self.templates)


def expand(rng: Random, template: str, slots: Mapping[str, Sequence[str]]) -> str:
    """Fill one template: choices first, innermost outwards, then slots, then the article and the capital letter.

    "a [nice|odd] {thing}" with the thing "jazz" -> "An odd jazz"
    """
    text = template
    while _CHOICE.search(text):
        text = _CHOICE.sub(lambda choice: rng.choice(choice.group(1).split("|")), text)
    while match := _SLOT.search(text):
        filling = rng.choice(list(slots[match.group(1)]))
        while _CHOICE.search(filling):
            filling = _CHOICE.sub(lambda choice: rng.choice(choice.group(1).split("|")), filling)
        # a brace in the filling is no slot
        text = text[: match.start()] + filling.replace("{", "\x00") + text[match.end() :]
    return capitalise(_ARTICLE.sub(r"\1n ", text.replace("\x00", "{")))


def capitalise(text: str) -> str:
    """The text with a capital first letter, the rest as it is."""
    return text[:1].upper() + text[1:]


def uncapitalise(text: str) -> str:
    """The text for use inside a sentence: "The cat." -> "the cat."; "I", "NASA" and single letters keep capitals."""
    word = text.split(maxsplit=1)[0] if text.split() else ""
    if word.lower() in _PROPER or not word[1:].islower():
        return text if word not in {"A"} else "a" + text[1:]
    return text[:1].lower() + text[1:]


def _count_derivations(template: str, slots: Mapping[str, Sequence[str]]) -> int:
    """How many texts a template can make. `a [b|c] {d}` with two words for `d` makes 4."""
    product = 1
    text = template
    while match := _CHOICE.search(text):
        product *= len(match.group(1).split("|"))
        text = text[: match.start()] + text[match.end() :]
    for match in _SLOT.finditer(text):
        product *= sum(_count_derivations(word, slots) for word in slots.get(match.group(1), ("",)))
    return product
