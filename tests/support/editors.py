"""Scripted editors: chats that answer what a function says, and a strong one that repairs what is marked."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aligner_proxy.correctors.editor import Editors
from aligner_proxy.correctors.model_group import Payer, Reply
from aligner_proxy.errors import CorrectionError

Script = Callable[[Sequence[Mapping[str, str]]], str | Reply | CorrectionError]
_MARKED = re.compile(r"<(passagex*)-(\d+)>(.*?)</\1-\2>", re.DOTALL)
TOKEN_CHARS = 4


@dataclass(slots=True)
class ScriptedChat:
    """Answers every call by its script, and remembers the calls. Satisfies `Chat`."""

    script: Script
    asked: list[Sequence[Mapping[str, str]]] = field(default_factory=list)
    payers: list[dict[str, Any]] = field(default_factory=list)
    forms: list[Mapping[str, Any] | None] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    temperatures: list[float] = field(default_factory=list)

    def models(self) -> Sequence[str]:
        """There is one."""
        return ["openai/strong"]

    async def ask(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        max_tokens: int,
        temperature: float,
        response_format: Mapping[str, Any] | None,
        payer: Payer,
        deadline_s: float,
    ) -> Reply:
        """Play the script."""
        self.asked.append(messages)
        self.payers.append(dict(payer))
        self.forms.append(response_format)
        self.seconds.append(deadline_s)
        self.tokens.append(max_tokens)
        self.temperatures.append(temperature)
        reply = self.script(messages)
        if isinstance(reply, CorrectionError):
            raise reply
        if isinstance(reply, Reply):
            return reply
        read = sum(len(message["content"]) for message in messages) // TOKEN_CHARS
        return Reply(reply, read, len(reply) // TOKEN_CHARS)


def marked(messages: Sequence[Mapping[str, str]]) -> dict[int, str]:
    """The marked passages of a question, by number."""
    answer = json.loads(messages[-1]["content"])["answer"]
    return {int(number): text for _, number, text in _MARKED.findall(answer)}


def replying(texts: Mapping[int, str]) -> str:
    """A reply with these replacements."""
    entries = [{"number": number, "text": text} for number, text in texts.items()]
    return json.dumps({"replacements": entries})


def repairing(repair: Callable[[str], str]) -> Script:
    """The script of an editor that replaces each marked passage by its repair."""
    return lambda messages: replying({number: repair(text) for number, text in marked(messages).items()})


def editors(chat: ScriptedChat) -> Editors:
    """Editors of which every group is this chat."""
    return Editors(lambda _: chat)
