"""Scripted judges: chats that answer the questions of judges."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

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
