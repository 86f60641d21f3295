"""Drafts for the server that writes, taken from its prompt: behind an edit they go on where the answer goes on.

Lossless: the model checks every token, so a bad draft costs time and never changes text. vLLM gives a proposer nothing
but the tokens of each sequence, so where to go on is found anew in each step: behind the last tokens written, four of
them or fewer, as they stand in the prompt; of several such places the one nearest to where the text before them was
copied from. Numpy only.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.integer[Any]]

_LONGEST = 4
_REMEMBERED = 24
"""Tokens before the end in which a place that was copied is looked for."""
_AHEAD = 6
"""A lone token that is known counts only so near behind the last place that was copied: a substitution, a deletion."""

_SEQUENCES = 4096
_MARK = 32


def draft(tokens: Ids, prompt: int, most: int) -> list[int]:
    """What may follow `tokens`, of which the first `prompt` are the prompt; at most `most`, often fewer or none."""
    written = len(tokens) - prompt
    if written < 1 or most < 1:
        return []
    source = tokens[:prompt]
    at = _goes_on(source, tokens, prompt)
    return [] if at is None else source[at : at + most].tolist()


def _goes_on(source: Ids, tokens: Ids, prompt: int) -> int | None:
    """Where in `source` the text goes on behind the last of `tokens`."""
    for size in range(min(_LONGEST, len(tokens)), 1, -1):
        places = behind(source, tokens[-size:])
        if len(places):
            near = _last_place(source, tokens, prompt) if len(places) > 1 else None
            return int(places[-1] if near is None else places[np.argmin(np.abs(places - near))])
    near = _last_place(source, tokens, prompt)
    if near is None:
        return None
    window = source[near : near + _AHEAD]
    found = np.flatnonzero(window == tokens[-1])
    return near + int(found[0]) + 1 if len(found) else near


def _last_place(source: Ids, tokens: Ids, prompt: int) -> int | None:
    """Where the text would stand now if all that was written since the last copied run had replaced as much."""
    for back in range(1, min(_REMEMBERED, len(tokens) - prompt) + 1):
        end = len(tokens) - back
        places = behind(source, tokens[max(0, end - 3) : end])
        if len(places):
            return min(int(places[-1]) + back, len(source))
    return None


def behind(source: Ids, run: Ids) -> NDArray[np.intp]:
    """The places right behind every `run` in `source` that something follows, ascending."""
    size = len(run)
    if size == 0 or len(source) <= size:
        return np.empty(0, dtype=np.intp)
    ends = np.flatnonzero(source[size - 1 : -1] == run[-1])
    for offset in range(size - 1):
        ends = ends[source[ends + offset] == run[offset]]
    return ends + size


class PromptLengths:
    """How long the prompt of each sequence is, which vLLM does not say: its text before the first token was drawn.

    A sequence is known again by its length and its last tokens, since sequences change their places in the batch.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[int, bytes], int] = OrderedDict()

    def of(self, tokens: Ids, drawn: int) -> int:
        """Of a sequence whose last `drawn` tokens are new; two that are alike have the same."""
        before = len(tokens) - drawn
        prompt = self._known.get(_mark(tokens[:before]), before)
        self._known[_mark(tokens)] = prompt
        while len(self._known) > _SEQUENCES:
            self._known.popitem(last=False)
        return prompt


def _mark(tokens: Ids) -> tuple[int, bytes]:
    return len(tokens), tokens[-_MARK:].tobytes()


class EditProposer:
    """`{"method": "custom_class", "model": "aligner_proxy_vllm.edit_proposer.EditProposer"}`, for vLLM's V1 runner."""

    def __init__(self, vllm_config: Any) -> None:
        self._most = int(vllm_config.speculative_config.num_speculative_tokens)
        self._longest = int(vllm_config.model_config.max_model_len)
        self._prompts = PromptLengths()

    def load_model(self, *_: object, **__: object) -> None:
        """There is none."""

    def propose(
        self, sampled_token_ids: Sequence[Sequence[int]], num_tokens: Ids, token_ids: Ids, **_: object
    ) -> list[list[int]]:
        """Drafts for each sequence of the step; none for one that is still being read."""
        drafts: list[list[int]] = []
        for at, sampled in enumerate(sampled_token_ids):
            if not sampled:
                drafts.append([])
                continue
            tokens = token_ids[at, : int(num_tokens[at])]
            room = min(self._most, self._longest - len(tokens) - 1)
            drafts.append(draft(tokens, self._prompts.of(tokens, len(sampled)), room))
        return drafts
