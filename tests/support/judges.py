"""Scripted judges: chats that answer the questions of judges."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from aligner_proxy.correctors.judge import Judges
from tests.support.editors import Script, ScriptedChat, marked


def verdict_reply(violates: Mapping[int, bool]) -> str:
    """A reply with these verdicts by number."""
    entries = [{"number": n, "violates": bad, "probability": 0.9 if bad else 0.1} for n, bad in violates.items()]
    return json.dumps({"verdicts": entries})


def judging(violates: Callable[[str], bool]) -> Script:
    """The script of a judge that says of each marked passage whether it violates its objective."""
    return lambda messages: verdict_reply({number: violates(text) for number, text in marked(messages).items()})


def guarding(reply: Callable[[str], str]) -> Script:
    """The script of a guard that replies to the last text of an assistant."""

    def script(messages: Sequence[Mapping[str, str]]) -> str:
        return reply(next(m["content"] for m in reversed(messages) if m["role"] == "assistant"))

    return script


def judges(chat: ScriptedChat) -> Judges:
    """Judges of which every group is this chat."""
    return Judges(lambda _: chat, lambda _: chat)


@dataclass(frozen=True, slots=True)
class AskedAbout:
    """A fact that a judge is asked about: the fact, its passage, and the values that it may choose from."""

    fact: str
    passage: str
    values: Sequence[str]


def asked_facts(messages: Sequence[Mapping[str, str]]) -> dict[int, AskedAbout]:
    """The facts that a judge of references is asked about, by number."""
    passages = marked(messages)
    facts = json.loads(messages[-1]["content"])["facts"]
    return {
        one["number"]: AskedAbout(one["fact"], passages[one["passage"]], [value["value"] for value in one["values"]])
        for one in facts
    }


def fact_reply(verdicts: Mapping[int, tuple[str, int]]) -> str:
    """A reply with these verdicts on facts by number, each with the number of a value."""
    return json.dumps({"verdicts": [{"number": n, "verdict": v, "value": value} for n, (v, value) in verdicts.items()]})


def contradicting(right: Mapping[str, str], otherwise: str = "supported") -> Script:
    """The script of a judge that knows which fact is contradicted by which value, and says `otherwise` of others."""

    def verdict(asked: AskedAbout) -> tuple[str, int]:
        value = right.get(asked.fact)
        if value is None:
            return otherwise, 0
        return "contradicted", asked.values.index(value) + 1 if value in asked.values else 0

    return lambda messages: fact_reply({number: verdict(one) for number, one in asked_facts(messages).items()})
