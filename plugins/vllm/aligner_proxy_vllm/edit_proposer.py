"""Draft tokens for the vLLM server that writes corrections, copied from the answer in the prompt.

A correction mostly repeats the answer, so a pointer into the prompt tells which tokens are likely next. Drafts are
lossless: the model verifies every token, so a bad draft costs time but never changes text. When the written text stops
being a copy (the break), the pointer is set again by the first rule that applies:

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

_MAX_RUN_TOKENS = 4
"""Most written tokens that are searched for in the prompt (rule 1)."""
_TOKENS_BEFORE_BREAK = 2
_TOKENS_AFTER_BREAK = 8
"""Window of the one-token search around the break (rule 2)."""
_MAX_SEQUENCES = 4096
"""Most states that are kept; the oldest are dropped."""
_KEY_TOKENS = 32
"""Tokens at the end of a sequence by which it is recognised."""


@dataclass(frozen=True, slots=True)
class CopyState:
    """How far the text of one sequence (prompt and written tokens) has been copied from its prompt."""

    prompt_length: int
    """In tokens."""
    pointer: int | None = None
    """Index in the prompt of the token that is expected next; None if unknown."""

    def advance(self, tokens: Ids, new_count: int) -> CopyState:
        """Return the state after `tokens`, the whole sequence, of which the last `new_count` are new."""
        prompt = tokens[: self.prompt_length]
        new_tokens = tokens[len(tokens) - new_count :]
        return CopyState(self.prompt_length, _find_next_place(prompt, tokens, new_tokens, self.pointer))

    def draft(self, tokens: Ids, most: int) -> list[int]:
        """Return the likely next tokens of the sequence `tokens`: at most `most`, and often fewer or none."""
        if self.pointer is None or most < 1:
            return []
        stop = min(self.prompt_length, self.pointer + most)
        draft_tokens: list[int] = tokens[self.pointer : stop].tolist()
        return draft_tokens


def _find_next_place(prompt: Ids, tokens: Ids, new_tokens: Ids, pointer: int | None) -> int | None:
    """Find the token of the prompt that probably comes after the last of `tokens`.

    `new_tokens` are the last of `tokens`, written since `pointer` was set; `pointer` is the index of the token that was
    expected as the first of them, None if unknown. Returns an index in `prompt`, None if unknown.
    """
    # the index in the prompt where the new tokens stop being a copy of it; None if there was no pointer
    break_index = None
    if pointer is not None:
        copied_count = _common_length(prompt[pointer:], new_tokens)
        break_index = pointer + copied_count
        if copied_count == len(new_tokens):
            return break_index  # all new tokens are a copy, so there is no break
    # Rule 1: where the last few tokens occur nearest to the break. A single token occurs too often for this search,
    # so with a pointer only rule 2 searches for it.
    min_size = 1 if pointer is None else 2
    max_size = min(_MAX_RUN_TOKENS, len(tokens))
    for size in range(max_size, min_size - 1, -1):
        run_ends = find_run_ends(prompt, tokens[-size:])
        if len(run_ends):
            return int(run_ends[-1]) if break_index is None else _find_nearest(run_ends, break_index)
    if break_index is None:
        return None
    # rule 2: where the last token occurs within a small window around the break
    window_start = max(0, break_index - _TOKENS_BEFORE_BREAK)
    window = prompt[window_start : break_index + _TOKENS_AFTER_BREAK]
    matches = np.flatnonzero(window == tokens[-1]) + window_start
    if len(matches):
        return _find_nearest(matches, break_index) + 1
    # rule 3: the last token replaces the one at the break
    return break_index + 1


def _find_nearest(indexes: NDArray[np.intp], target: int) -> int:
    """The index that is nearest to `target`; of two equally near, the first."""
    return int(indexes[np.argmin(np.abs(indexes - target))])


def _common_length(one: Ids, other: Ids) -> int:
    """Length of the longest beginning that both share: [1, 2, 3] and [1, 2, 9] -> 2."""
    length = min(len(one), len(other))
    differences = np.flatnonzero(one[:length] != other[:length])
    return int(differences[0]) if len(differences) else length


def find_run_ends(prompt: Ids, run: Ids) -> NDArray[np.intp]:
    """Indexes right after each occurrence of `run` in `prompt`, ascending: [5, 6, 7, 5, 6] and [5, 6] -> [2].

    An occurrence at the end of `prompt` is left out, since no token follows it.
    """
    size = len(run)
    if size == 0 or len(prompt) <= size:
        return np.empty(0, dtype=np.intp)
    # where an occurrence may begin, by its last token; each of its other tokens then rules out some of these
    starts = np.flatnonzero(prompt[size - 1 : -1] == run[-1])
    for offset in range(size - 1):
        starts = starts[prompt[starts + offset] == run[offset]]
    return starts + size


class CopyStates:
    """For each sequence, how far its text has been copied from its prompt.

    vLLM moves sequences within the batch and passes neither their ids nor where their prompts end. So a sequence is
    recognised by its length and last tokens, and its prompt is everything before the first written token.
    """

    def __init__(self) -> None:
        self._states: OrderedDict[tuple[int, bytes], CopyState] = OrderedDict()
        """States by `_sequence_key`, the oldest first."""

    def update_state(self, tokens: Ids, new_count: int) -> CopyState:
        """Update and return the state of a sequence whose last `new_count` tokens are new.

        Without a state for the tokens before them, these tokens are the prompt of a new sequence. Sequences with equal
        tokens share a state.
        """
        known_length = len(tokens) - new_count
        known_state = self._states.get(_sequence_key(tokens[:known_length]), CopyState(known_length))
        new_state = known_state.advance(tokens, new_count)
        self._states[_sequence_key(tokens)] = new_state
        while len(self._states) > _MAX_SEQUENCES:
            self._states.popitem(last=False)
        return new_state


def _sequence_key(tokens: Ids) -> tuple[int, bytes]:
    """The key of a sequence: its length, and its last `_KEY_TOKENS` tokens as bytes."""
    return len(tokens), tokens[-_KEY_TOKENS:].tobytes()


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

        Sequence i is the first `num_tokens[i]` of row i of `token_ids`; `sampled_token_ids[i]` are its newest tokens,
        which the model has just written, none while it reads the prompt.
        """
        drafts: list[list[int]] = []
        for row, new_tokens in enumerate(sampled_token_ids):
            if not new_tokens:
                drafts.append([])
                continue
            tokens = token_ids[row, : int(num_tokens[row])]
            room = min(self._max_draft_tokens, self._max_sequence_tokens - len(tokens) - 1)
            state = self._copy_states.update_state(tokens, len(new_tokens))
            drafts.append(state.draft(tokens, room))
        return drafts
