"""Draft tokens for the vLLM server that writes corrections, copied from the answer in the prompt.

A correction mostly repeats the answer, so a pointer into the prompt tells which tokens are likely next. Drafts are
lossless: the model verifies every token, so a bad draft costs time but never changes text. When the written text
differs from the copy, the pointer is set again by the first rule that applies:

1. after the last four written tokens or fewer, where they occur in the prompt nearest to the break;
2. after the last written token within a small window (a deletion, or the end of an insertion);
3. one token further (a substitution).

Numpy only.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.integer[Any]]

_LONGEST = 4
_BEHIND = 2
_AHEAD = 8
"""Window of the one-token search around the break: this many tokens before and after."""
_SEQUENCES = 4096
_MARK = 32


@dataclass(frozen=True, slots=True)
class Copying:
    """State of a sequence: the length of its prompt, and the pointer from which the text continues, if any."""

    prompt: int
    pointer: int | None = None

    def after(self, tokens: Ids, drawn: int) -> Copying:
        """Return the state after `tokens`, of which the last `drawn` are new."""
        source = tokens[: self.prompt]
        return Copying(self.prompt, _goes_on(source, tokens, tokens[len(tokens) - drawn :], self.pointer))

    def draft(self, tokens: Ids, most: int) -> list[int]:
        """Return the likely next tokens, at most `most`; often fewer or none."""
        if self.pointer is None or most < 1:
            return []
        drafted: list[int] = tokens[self.pointer : min(self.prompt, self.pointer + most)].tolist()
        return drafted


def _goes_on(source: Ids, tokens: Ids, new: Ids, pointer: int | None) -> int | None:
    """Index in `source` at which the text continues after the last of `tokens`; None if unknown."""
    broke = None
    if pointer is not None:
        copied = _common(source[pointer:], new)
        broke = pointer + copied
        if copied == len(new):
            return broke
    for size in range(min(_LONGEST, len(tokens)), 1 if pointer is not None else 0, -1):
        places = behind(source, tokens[-size:])
        if len(places):
            return int(places[-1] if broke is None else places[np.argmin(np.abs(places - broke))])
    if broke is None:
        return None
    first = max(0, broke - _BEHIND)
    found = np.flatnonzero(source[first : broke + _AHEAD] == tokens[-1]) + first
    return int(found[np.argmin(np.abs(found - broke))]) + 1 if len(found) else broke + 1


def _common(one: Ids, other: Ids) -> int:
    """Length of the common prefix."""
    length = min(len(one), len(other))
    different = np.flatnonzero(one[:length] != other[:length])
    return int(different[0]) if len(different) else length


def behind(source: Ids, run: Ids) -> NDArray[np.intp]:
    """Indexes right after each occurrence of `run` in `source`, ascending; without an occurrence at the very end."""
    size = len(run)
    if size == 0 or len(source) <= size:
        return np.empty(0, dtype=np.intp)
    ends = np.flatnonzero(source[size - 1 : -1] == run[-1])
    for offset in range(size - 1):
        ends = ends[source[ends + offset] == run[offset]]
    return ends + size


class Copies:
    """The states of all sequences.

    vLLM moves sequences within the batch and passes neither their ids nor where their prompts end. So a sequence is
    recognised by its length and last tokens, and its prompt is everything before the first drawn token.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[int, bytes], Copying] = OrderedDict()

    def of(self, tokens: Ids, drawn: int) -> Copying:
        """Update and return the state of a sequence whose last `drawn` tokens are new.

        Equal sequences share a state.
        """
        before = len(tokens) - drawn
        copying = self._known.get(_mark(tokens[:before]), Copying(before)).after(tokens, drawn)
        self._known[_mark(tokens)] = copying
        while len(self._known) > _SEQUENCES:
            self._known.popitem(last=False)
        return copying


def _mark(tokens: Ids) -> tuple[int, bytes]:
    return len(tokens), tokens[-_MARK:].tobytes()


class EditProposer:
    """Draft proposer for vLLM's V1 runner.

    Configure it with `{"method": "custom_class", "model": "aligner_proxy_vllm.edit_proposer.EditProposer"}`.
    """

    def __init__(self, vllm_config: Any) -> None:
        self._most = int(vllm_config.speculative_config.num_speculative_tokens)
        self._longest = int(vllm_config.model_config.max_model_len)
        self._copies = Copies()

    def load_model(self, *_: object, **__: object) -> None:
        """Do nothing, since there is no draft model."""

    def propose(
        self, sampled_token_ids: Sequence[Sequence[int]], num_tokens: Ids, token_ids: Ids, **_: object
    ) -> list[list[int]]:
        """Return drafts for each sequence of the step; none for a sequence whose prompt is still being read."""
        drafts: list[list[int]] = []
        for at, sampled in enumerate(sampled_token_ids):
            if not sampled:
                drafts.append([])
                continue
            tokens = token_ids[at, : int(num_tokens[at])]
            room = min(self._most, self._longest - len(tokens) - 1)
            drafts.append(self._copies.of(tokens, len(sampled)).draft(tokens, room))
        return drafts
