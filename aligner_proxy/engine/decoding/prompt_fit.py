"""Prompts that fit the aligner's window, however long the conversation and the answer are. An answer that is too long
for one prompt is read in parts (parts.py). The frame is what these prompts have in common: all but the answer.

Every prompt contains the whole template with the objectives. Of the remaining window the conversation gets up to half
(conversation.py cuts it). The answer gets the rest, which must hold the answer and its rewritten form. The cut of the
conversation does not depend on the answer, so that a growing answer always follows the same tokens.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from aligner_proxy import prompts
from aligner_proxy.engine.api import AlignRequest
from aligner_proxy.engine.decoding import conversation
from aligner_proxy.engine.decoding.parts import CHARS_PER_TOKEN, Division
from aligner_proxy.engine.model.tokenizer import Encoded, PromptTokenizer
from aligner_proxy.errors import AnswerTooLong
from aligner_proxy.text.disguises import UndisguisedText
from aligner_proxy.text.structure import Segment

LONGEST_ANSWER_CHARS = 1_000_000
"""Characters of the longest answer that is read. docs/reference/benchmarks.md says how long that takes."""
_MIN_RESERVE = 64
"""Fewest tokens that a rewritten answer may be longer than the answer."""
MIN_ROOM = 4 * _MIN_RESERVE
"""Fewest tokens of the window that the objectives must leave for conversation and answer."""
CONVERSATION_SHARE = 0.5
"""Largest share that the conversation gets of the tokens that the objectives leave."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """A prompt with its tokens. Tenants may share the cached model states of the first `shared` tokens."""

    prompt: prompts.Prompt
    encoded: Encoded
    shared: int

    @property
    def ids(self) -> list[int]:
        return self.encoded.ids

    @property
    def offsets(self) -> list[tuple[int, int]]:
        """The (start, end) characters of each token."""
        return self.encoded.offsets


class TokenRuler:
    """Measures texts with an aligner's tokenizer, as its template writes them. Satisfies `Ruler`."""

    def __init__(self, tokenizer: PromptTokenizer, template: prompts.Template) -> None:
        self._tokenizer = tokenizer
        self._template = template

    def count(self, text: str) -> int:
        return len(self._tokenizer.list_ids(self._template.guard(text)))

    def first(self, text: str, tokens: int) -> str:
        """Return the characters of the first `tokens` tokens."""
        # guarding keeps the length of a text, so the (start, end) of its tokens apply to `text`
        offsets = self._tokenizer.encode_text(self._template.guard(text)).offsets
        return text if len(offsets) <= tokens else text[: offsets[tokens][0]]

    def last(self, text: str, tokens: int) -> str:
        """Return the characters of the last `tokens` tokens."""
        offsets = self._tokenizer.encode_text(self._template.guard(text)).offsets
        return text if len(offsets) <= tokens else text[offsets[len(offsets) - tokens][0] :]


@dataclass(frozen=True, slots=True)
class PromptFrame:
    """The text around an answer in its prompts: the template with its objectives, and the cut conversation."""

    template: prompts.Template
    conversation_text: str
    """The conversation, as the template writes it."""
    objectives: tuple[str, ...]
    shared_objective_count: int
    """How many of the first objectives are the operator's, not the request's own."""
    tokenizer: PromptTokenizer
    window: int
    answer_tokens: int
    """Tokens of the longest answer, or part of an answer, that fits."""
    taught_heads: Any = None
    """The heads that were fitted to examples of the objectives; only the model reads them."""

    def fit_prompt(
        self, answer: str | UndisguisedText, previous: Fitted | None = None, common_length: int = 0
    ) -> Fitted:
        """Return the prompt of an answer, or of a part of one.

        If its first `common_length` characters are those of the answer in `previous`, only the rest is tokenised.
        """
        prompt = prompts.render(self.template, self.conversation_text, answer, self.objectives)
        if previous:
            common_end = prompt.offset_in_prompt(common_length)
            encoded = self.tokenizer.extend_prompt(previous.encoded, previous.prompt.text, prompt.text, common_end)
            return Fitted(prompt, encoded, previous.shared)
        encoded = self.tokenizer.encode_prompt(prompt.text)
        # the tenant's own text begins with its own objectives, which come after the shared ones, or the conversation
        tenant_start = prompt.question
        if self.shared_objective_count < len(prompt.objectives):
            tenant_start, _ = prompt.objectives[self.shared_objective_count]
        return Fitted(prompt, encoded, shared=encoded.count_before(tenant_start))

    def divide(self, segments: Iterable[Segment] = ()) -> Division:
        """Divide an answer of these segments into parts that fit."""
        return Division(TokenRuler(self.tokenizer, self.template), self.answer_tokens, segments)


def make_frame(
    request: AlignRequest, template: prompts.Template, tokenizer: PromptTokenizer, window: int
) -> PromptFrame:
    """Build the frame of a request's prompts; raises `AnswerTooLong` if the objectives or the answer are too long."""
    if len(request.answer) > LONGEST_ANSWER_CHARS:
        raise AnswerTooLong(f"an answer of {len(request.answer)} characters; at most {LONGEST_ANSWER_CHARS} are read")
    frame_text = prompts.render(template, "", "", request.objectives).text
    tokens_left = 0
    # objectives that are obviously too long are not tokenised
    if len(frame_text) <= window * CHARS_PER_TOKEN:
        tokens_left = window - len(tokenizer.encode_prompt(frame_text).ids)
    if tokens_left < MIN_ROOM:
        raise AnswerTooLong(f"the objectives fill the aligner's window of {window} tokens; write shorter ones")
    ruler = TokenRuler(tokenizer, template)
    turns = conversation.cut_turns(request.turns, ruler, int(tokens_left * CONVERSATION_SHARE))
    conversation_text = prompts.query_field(template, turns)
    # what a short conversation leaves of its half goes to the answer
    answer_tokens = compute_answer_room(tokens_left - ruler.count(conversation_text))
    return PromptFrame(
        template,
        conversation_text,
        request.objectives,
        shared_objective_count=request.common,
        tokenizer=tokenizer,
        window=window,
        answer_tokens=answer_tokens,
    )


def count_writing_room(answer_tokens: int) -> int:
    """Return how many tokens may be written to correct an answer of so many tokens: 164 for 100, 600 for 400."""
    return answer_tokens + max(_MIN_RESERVE, answer_tokens // 2)


def compute_answer_room(tokens_left: int) -> int:
    """Return the tokens of the longest answer that fits into `tokens_left` tokens together with its correction."""
    # a short answer and its correction (`count_writing_room`) take twice its tokens and `_MIN_RESERVE` more
    answer_tokens = (tokens_left - _MIN_RESERVE) // 2
    # a longer answer and its correction take 2.5 times its tokens, so the answer may have two fifths
    if answer_tokens >= 2 * _MIN_RESERVE:
        answer_tokens = tokens_left * 2 // 5
    return max(1, answer_tokens)
