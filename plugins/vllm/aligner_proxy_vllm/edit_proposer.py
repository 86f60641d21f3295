"""Drafts for the server that writes, taken from its prompt: behind an edit they go on where the answer goes on.

Lossless: the model checks every token, so a bad draft costs time and never changes text. A pointer into the prompt says
what is likely to come. After a disagreement it is set again: behind the last tokens written, four of them or fewer, as
they stand in the prompt nearest to where the copy broke; else behind the last token in a small window (a deletion, the
end of an insertion); else one token further (a substitution). Numpy only.
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
"""Window of the one-token search, around the place where the copy broke."""
_SEQUENCES = 4096
_MARK = 32


@dataclass(frozen=True, slots=True)
class Copying:
    """Where a sequence is: the length of its prompt, and the place in it from which the text goes on, if any."""

    prompt: int
    pointer: int | None = None

    def after(self, tokens: Ids, drawn: int) -> Copying:
        """The same behind `tokens`, of which the last `drawn` are new."""
        source = tokens[: self.prompt]
        return Copying(self.prompt, _goes_on(source, tokens, tokens[len(tokens) - drawn :], self.pointer))

    def draft(self, tokens: Ids, most: int) -> list[int]:
        """What may follow; at most `most`, often fewer or none."""
        if self.pointer is None or most < 1:
            return []
        drafted: list[int] = tokens[self.pointer : min(self.prompt, self.pointer + most)].tolist()
        return drafted


def _goes_on(source: Ids, tokens: Ids, new: Ids, pointer: int | None) -> int | None:
    """Where in `source` the text goes on behind the last of `tokens`."""
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
    """How many of their first tokens are the same."""
    length = min(len(one), len(other))
    different = np.flatnonzero(one[:length] != other[:length])
    return int(different[0]) if len(different) else length


def behind(source: Ids, run: Ids) -> NDArray[np.intp]:
    """The places right behind every `run` in `source` that something follows, ascending."""
    size = len(run)
    if size == 0 or len(source) <= size:
        return np.empty(0, dtype=np.intp)
    ends = np.flatnonzero(source[size - 1 : -1] == run[-1])
    for offset in range(size - 1):
        ends = ends[source[ends + offset] == run[offset]]
    return ends + size


class Copies:
    """Where each sequence is. vLLM tells neither its name nor where its prompt ends, and moves it in the batch.

    So a sequence is known again by its length and its last tokens; its prompt is what it was at the first draw.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[int, bytes], Copying] = OrderedDict()

    def of(self, tokens: Ids, drawn: int) -> Copying:
        """Of a sequence whose last `drawn` tokens are new. Two that are alike are at the same place."""
        before = len(tokens) - drawn
        copying = self._known.get(_mark(tokens[:before]), Copying(before)).after(tokens, drawn)
        self._known[_mark(tokens)] = copying
        while len(self._known) > _SEQUENCES:
            self._known.popitem(last=False)
        return copying


def _mark(tokens: Ids) -> tuple[int, bytes]:
    return len(tokens), tokens[-_MARK:].tobytes()


class EditProposer:
    """`{"method": "custom_class", "model": "aligner_proxy_vllm.edit_proposer.EditProposer"}`, for vLLM's V1 runner."""

    def __init__(self, vllm_config: Any) -> None:
        self._most = int(vllm_config.speculative_config.num_speculative_tokens)
        self._longest = int(vllm_config.model_config.max_model_len)
        self._copies = Copies()

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
            drafts.append(self._copies.of(tokens, len(sampled)).draft(tokens, room))
        return drafts
