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
"""Token ids."""

_LONGEST = 4
"""Most written tokens that are searched for in the prompt (rule 1)."""
_BEHIND = 2
_AHEAD = 8
"""Window of the one-token search around the break: this many tokens before and after."""
_MOST_SEQUENCES = 4096
"""How many states are kept; the oldest are dropped."""
_MARK = 32
"""How many tokens at the end of a sequence recognise it."""


@dataclass(frozen=True, slots=True)
class CopyState:
    """How far the text of one sequence (prompt and written tokens) has been copied from its prompt."""

    prompt: int
    """Length of its prompt, in tokens."""
    pointer: int | None = None
    """Index in the prompt of the token that is expected next; None if unknown."""

    def advance(self, tokens: Ids, new_count: int) -> CopyState:
        """Return the state after `tokens`, of which the last `new_count` are new."""
        source = tokens[: self.prompt]
        return CopyState(self.prompt, _find_next_place(source, tokens, tokens[len(tokens) - new_count :], self.pointer))

    def draft(self, tokens: Ids, most: int) -> list[int]:
        """Return the likely next tokens, at most `most`; often fewer or none."""
        if self.pointer is None or most < 1:
            return []
        drafted: list[int] = tokens[self.pointer : min(self.prompt, self.pointer + most)].tolist()
        return drafted


def _find_next_place(source: Ids, tokens: Ids, new: Ids, pointer: int | None) -> int | None:
    """Find the token of the prompt (`source`) that probably comes after the last of `tokens`.

    `new` are the last of `tokens`, written since `pointer` was set. Returns an index in `source`, None if unknown.
    """
    # where the new tokens stop being a copy of the prompt
    broke = None
    if pointer is not None:
        copied = _common_length(source[pointer:], new)
        broke = pointer + copied
        if copied == len(new):
            return broke
    # rule 1; a single token occurs too often, so with a pointer only rule 2 searches for it
    for size in range(min(_LONGEST, len(tokens)), 1 if pointer is not None else 0, -1):
        places = find_run_ends(source, tokens[-size:])
        if len(places):
            return int(places[-1] if broke is None else places[np.argmin(np.abs(places - broke))])
    if broke is None:
        return None
    # rule 2, then rule 3
    first = max(0, broke - _BEHIND)
    matches = np.flatnonzero(source[first : broke + _AHEAD] == tokens[-1]) + first
    return int(matches[np.argmin(np.abs(matches - broke))]) + 1 if len(matches) else broke + 1


def _common_length(one: Ids, other: Ids) -> int:
    """Length of the longest beginning that both share: [1, 2, 3] and [1, 2, 9] -> 2."""
    length = min(len(one), len(other))
    different = np.flatnonzero(one[:length] != other[:length])
    return int(different[0]) if len(different) else length


def find_run_ends(source: Ids, run: Ids) -> NDArray[np.intp]:
    """Indexes right after each occurrence of `run` in `source`, ascending: [5, 6, 7, 5, 6] and [5, 6] -> [2].

    An occurrence at the end of `source` is left out, since no token follows it.
    """
    size = len(run)
    if size == 0 or len(source) <= size:
        return np.empty(0, dtype=np.intp)
    # `ends` are candidates for the first token of an occurrence; each step keeps those whose next token fits
    ends = np.flatnonzero(source[size - 1 : -1] == run[-1])
    for offset in range(size - 1):
        ends = ends[source[ends + offset] == run[offset]]
    return ends + size


class CopyStates:
    """The states of all sequences.

    vLLM moves sequences within the batch and passes neither their ids nor where their prompts end. So a sequence is
    recognised by its length and last tokens, and its prompt is everything before the first drawn token.
    """

    def __init__(self) -> None:
        self._states: OrderedDict[tuple[int, bytes], CopyState] = OrderedDict()
        """States by `_sequence_key`, the oldest first."""

    def update_state(self, tokens: Ids, new_count: int) -> CopyState:
        """Update and return the state of a sequence whose last `new_count` tokens are new.

        States are stored under the tokens, so equal sequences share one; an unknown sequence starts a new one.
        """
        before = len(tokens) - new_count
        copying = self._states.get(_sequence_key(tokens[:before]), CopyState(before)).advance(tokens, new_count)
        self._states[_sequence_key(tokens)] = copying
        while len(self._states) > _MOST_SEQUENCES:
            self._states.popitem(last=False)
        return copying


def _sequence_key(tokens: Ids) -> tuple[int, bytes]:
    """The key of a sequence: its length, and its last `_MARK` tokens as bytes."""
    return len(tokens), tokens[-_MARK:].tobytes()


class EditProposer:
    """Draft proposer for vLLM's V1 runner.

    Configure it with `{"method": "custom_class", "model": "aligner_proxy_vllm.edit_proposer.EditProposer"}`.
    """

    def __init__(self, vllm_config: Any) -> None:
        self._max_draft_tokens = int(vllm_config.speculative_config.num_speculative_tokens)
        self._max_sequence_tokens = int(vllm_config.model_config.max_model_len)
        self._copy_states = CopyStates()
        """How far each sequence has copied the answer in its prompt."""

    def load_model(self, *_: object, **__: object) -> None:
        """Do nothing, since there is no draft model."""

    def propose(
        self, sampled_token_ids: Sequence[Sequence[int]], num_tokens: Ids, token_ids: Ids, **_: object
    ) -> list[list[int]]:
        """Return the draft for each sequence of the batch; empty while its prompt is still being read.

        Sequence i is the first `num_tokens[i]` of row i of `token_ids`; `sampled_token_ids[i]` are its newest tokens.
        """
        drafts: list[list[int]] = []
        for row, sampled in enumerate(sampled_token_ids):
            if not sampled:
                drafts.append([])
                continue
            tokens = token_ids[row, : int(num_tokens[row])]
            room = min(self._max_draft_tokens, self._max_sequence_tokens - len(tokens) - 1)
            drafts.append(self._copy_states.update_state(tokens, len(sampled)).draft(tokens, room))
        return drafts
