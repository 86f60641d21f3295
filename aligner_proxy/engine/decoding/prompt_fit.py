"""Prompts that fit the aligner's window, whatever the conversation and the answer are.

The template with the objectives stands whole in every prompt. Of what they leave the conversation gets up to half
(conversation.py cuts it) and the answer the rest, where it must have room to be written once more; an answer that needs
more is read in parts (parts.py). How the conversation is cut does not depend on the answer: an answer that grows is
read behind the same words. Only objectives that fill the window are refused, and answers beyond a bound.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from aligner_proxy import prompts
from aligner_proxy.engine.api import AlignRequest
from aligner_proxy.engine.decoding import conversation
from aligner_proxy.engine.decoding.parts import Division
from aligner_proxy.engine.model.tokenizer import Encoded, PromptTokenizer
from aligner_proxy.errors import AnswerTooLong
from aligner_proxy.text.folding import Folded
from aligner_proxy.text.structure import Segment

LONGEST_ANSWER = 1_000_000
"""Characters of the longest answer that is read. docs/reference/benchmarks.md says how long that takes."""
CHARS_PER_TOKEN = 24
"""No tokenizer known to us averages more; a longer text is refused before time is spent on tokenising it."""
_ROOM = 64
"""Tokens that may be written beyond the answer's own, at least."""
LEAST_ROOM = 4 * _ROOM
"""Tokens that the objectives have to leave."""
CONVERSATION = 0.5
"""Its share in what the objectives leave."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """A prompt, its tokens with their characters, the answer's tokens, and room (tokens) to write in.

    Other tenants may share what the model computed of the first `shared` tokens.
    """

    prompt: prompts.Prompt
    encoded: Encoded
    answer: list[int]
    room: int
    shared: int = 0

    @property
    def ids(self) -> list[int]:
        """The prompt's tokens."""
        return self.encoded.ids

    @property
    def offsets(self) -> list[tuple[int, int]]:
        """Of each token the (start, end) characters it stands for."""
        return self.encoded.offsets

    @property
    def read(self) -> int:
        """Tokens up to the end of the answer."""
        return bisect_right(self.encoded.offsets, self.prompt.end, key=lambda offset: offset[1])


class TokenRuler:
    """Texts measured by an aligner's tokenizer, as its template writes them. Satisfies `Ruler`."""

    def __init__(self, tokenizer: PromptTokenizer, family: prompts.Template) -> None:
        self._tokenizer = tokenizer
        self._family = family

    def count(self, text: str) -> int:
        """Tokens of the text in a field."""
        return len(self._tokenizer.continuation(self._family.guard(text)))

    def first(self, text: str, tokens: int) -> str:
        """Characters whose tokens are among the first; guarding a text keeps its length."""
        offsets = self._tokenizer.pieces(self._family.guard(text)).offsets
        return text if len(offsets) <= tokens else text[: offsets[tokens][0]]

    def last(self, text: str, tokens: int) -> str:
        """Characters whose tokens are among the last."""
        offsets = self._tokenizer.pieces(self._family.guard(text)).offsets
        return text if len(offsets) <= tokens else text[offsets[len(offsets) - tokens][0] :]


@dataclass(frozen=True, slots=True)
class PromptFrame:
    """What stands around an answer in its prompts: the template with its objectives and the conversation as cut."""

    family: prompts.Template
    query: str
    objectives: tuple[str, ...]
    common: int
    """So many of the first objectives are no request's own."""
    tokenizer: PromptTokenizer
    window: int
    room: int
    """Tokens of the longest answer, or part of one, that fits."""
    taught_heads: Any = None
    """The taught heads of the objectives, which only the model looks into."""

    def fit_prompt(self, answer: str | Folded) -> Fitted:
        """The prompt of an answer, or of a part of one."""
        prompt = prompts.render(self.family, self.query, answer, self.objectives)
        return self._add_answer_tokens(prompt, self.tokenizer.prompt(prompt.text))

    def extend_prompt(self, previous: Fitted, answer: str | Folded, same: int) -> Fitted:
        """The same, where the answer begins with the same characters as that of `previous`; only what follows is read.

        The answer's own tokens are left out: who reads along writes nothing.
        """
        prompt = prompts.render(self.family, self.query, answer, self.objectives)
        before = previous.prompt.text
        encoded = self.tokenizer.prompt_after(previous.encoded, before, prompt.text, prompt.place(same))
        return Fitted(prompt, encoded, [], 0, previous.shared)

    def division(self, segments: Iterable[Segment] = ()) -> Division:
        """An answer of these segments in parts that fit."""
        return Division(TokenRuler(self.tokenizer, self.family), self.room, segments)

    def _add_answer_tokens(self, prompt: prompts.Prompt, encoded: Encoded) -> Fitted:
        answer = self.tokenizer.continuation(prompt.shown_answer)
        shared = bisect_right(encoded.offsets, self._common_end(prompt), key=lambda offset: offset[1])
        return Fitted(prompt, encoded, answer, writing_room(len(answer)), shared)

    def _common_end(self, prompt: prompts.Prompt) -> int:
        """Where in the prompt that which belongs to one tenant begins."""
        if self.common < len(prompt.objectives):
            return prompt.objectives[self.common][0]
        return prompt.question


def frame(request: AlignRequest, family: prompts.Template, tokenizer: PromptTokenizer, window: int) -> PromptFrame:
    """The frame of a request's prompts; raises `AnswerTooLong` where nothing fits."""
    if len(request.answer) > LONGEST_ANSWER:
        raise AnswerTooLong(f"an answer of {len(request.answer)} characters; at most {LONGEST_ANSWER} are read")
    tokens_left = window - _bare(request, family, tokenizer, window)
    if tokens_left < LEAST_ROOM:
        raise AnswerTooLong(f"the objectives fill the aligner's window of {window} tokens; write shorter ones")
    turns = conversation.cut(request.turns, TokenRuler(tokenizer, family), int(tokens_left * CONVERSATION))
    query = prompts.query_field(family, turns)
    room = longest_answer(tokens_left - len(tokenizer.continuation(family.guard(query))))
    return PromptFrame(family, query, request.objectives, request.common, tokenizer, window, room)


def fit(request: AlignRequest, family: prompts.Template, tokenizer: PromptTokenizer, window: int) -> Fitted:
    """The prompt of a request whose answer is one part."""
    return frame(request, family, tokenizer, window).fit_prompt(request.answer)


def _bare(request: AlignRequest, family: prompts.Template, tokenizer: PromptTokenizer, window: int) -> int:
    """Tokens of the template with the objectives alone; more than the window where they are not worth counting."""
    text = prompts.render(family, "", "", request.objectives).text
    return window + 1 if len(text) > window * CHARS_PER_TOKEN else len(tokenizer.prompt(text).ids)


def writing_room(answer: int) -> int:
    """Tokens to write in for an answer of so many."""
    return answer + max(_ROOM, answer // 2)


def longest_answer(tokens_left: int) -> int:
    """Tokens of the longest answer that fits beside a room to write in."""
    short = (tokens_left - _ROOM) // 2
    return max(1, short if short < 2 * _ROOM else tokens_left * 2 // 5)
