"""The topic of a query and its answer, as one word.

Some defects name the topic, so that a detector does not learn to flag whatever is off the topic.
"""

from __future__ import annotations

import re
from random import Random

_WORD = re.compile(r"[A-Za-z][a-z]{4,}(?![\w'\u2019])")
_COMMON = """
    about above across after again against almost along already although always among another answer anything
    around asked asking assistant because become before behind being below better between beyond bring called
    cannot change clear close comes could create describe different doing during early either enough every
    everyone everything example explain false family following found generate given gives going great happen
    having human include including instead itself large later least likely little makes making maybe means might
    never nothing often other others people person place please point possible possibly provide provided
    question quite rather really reason right sentence several shall should since small someone something sorry
    start still stuff sure taken takes tell their there these they thing things think those though three through
    today together toward trying under understand until using usually various very want wants what whatever when
    where whether which while whole whose will with within without would write writing wrong years yourself
    based first second third input output text
"""
_STOP = frozenset(_COMMON.split())


def topic_of(rng: Random, query: str, answer: str) -> str:
    """A random content word, if possible one in both query and answer; "" if there is none."""
    in_query = _words(query[-600:])
    in_answer = _words(answer[:1500])
    shared = [word for word in in_query if word in set(in_answer)]
    for words in (shared, in_query, in_answer):
        if words:
            return rng.choice(words)
    return ""


def _words(text: str) -> list[str]:
    """The content words of a text, in their order."""
    matches = (match.group() for match in _WORD.finditer(text))
    return [word for word in matches if word.lower() not in _STOP and not word.endswith("ly")]
