"""Hidden states of segments, for probes: what the layers of a model hold of every segment of labelled replies.

The prompt is the gateway's own. States are kept on disk in chunks, so that a stopped run goes on where it was, and a
second study reads nothing again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track
from transformers import DynamicCache

from aligner_proxy.engine.model.detector import DetectorHead, Taps, find_spans
from aligner_proxy.engine.scheduling.sequence import Spans
from aligner_proxy.prompts import find_template, render
from aligner_proxy.text.structure import split
from models.data.labelled_replies import LabelledReply, question_of

from .batches import group_by_length

POOLINGS = ("mean", "last", "before")
"""Which states stand for a segment: the mean of its tokens, its last token, and the token before its first."""
OWN = ""
"""Stands for a reply's own objective among those of a prompt."""
_CHUNK = 64
"""Replies whose states are in one file."""
BATCH_TOKENS = 4096
"""Most tokens in a forward pass."""
_LONGEST_PROMPT = 1400
"""Tokens of the longest prompt that is read."""


@dataclass(frozen=True, slots=True)
class SegmentStates:
    """States of replies: `states` is fp16 [segments, poolings, layers, hidden], the last layer after the final norm.

    Reply i has the segments `segment_starts[i]` to `segment_starts[i + 1]`: replies of 2 and 3 segments have the starts
    (0, 2, 5). `scores` are the detector head's log-odds (nats) of each segment under the objective of its reply, NaN
    without a head.
    """

    replies: tuple[LabelledReply, ...]
    states: np.ndarray[Any, np.dtype[np.float16]]
    scores: np.ndarray[Any, np.dtype[np.float32]]
    segment_starts: tuple[int, ...]

    def select_replies(self, mask: Iterable[bool]) -> SegmentStates:
        """The replies for which `mask` is true, in their order."""
        numbers = [number for number, take in enumerate(mask) if take]
        ranges = [range(self.segment_starts[number], self.segment_starts[number + 1]) for number in numbers]
        rows = list(chain.from_iterable(ranges))
        starts = (0, *np.cumsum(list(map(len, ranges))).tolist())
        return SegmentStates(tuple(self.replies[n] for n in numbers), self.states[rows], self.scores[rows], starts)


def join_states(parts: Sequence[SegmentStates]) -> SegmentStates:
    """Join several sets into one."""
    lengths = [stop - start for part in parts for start, stop in pairwise(part.segment_starts)]
    return SegmentStates(
        tuple(reply for part in parts for reply in part.replies),
        np.concatenate([part.states for part in parts]),
        np.concatenate([part.scores for part in parts]),
        (0, *np.cumsum(lengths).tolist()),
    )


class SharedBeginning:
    """Reads prompts through a model together; the tokens with which all of them begin are read once."""

    def __init__(self, model: Any, taps: Taps) -> None:
        self._model = model.eval()
        self._taps = taps

    @torch.inference_mode()
    def states(self, prompts: Sequence[list[int]]) -> torch.Tensor:
        """The states at the tapped layers, [prompts, tokens, layers + 1, hidden]; shorter prompts end in padding."""
        beginning = _common_beginning(prompts)
        cache = DynamicCache(config=self._model.config)
        before = self._forward([beginning], cache).expand(len(prompts), -1, -1, -1)
        cache.batch_repeat_interleave(len(prompts))
        width = max(map(len, prompts))
        behind = [tokens[len(beginning) :] + [0] * (width - len(tokens)) for tokens in prompts]
        # Right padding under a causal mask is never looked at.
        return torch.cat([before, self._forward(behind, cache)], dim=1)

    def _forward(self, tokens: Sequence[Sequence[int]], cache: DynamicCache) -> torch.Tensor:
        """States of tokens behind those in the cache."""
        hidden = self._model.model(input_ids=torch.tensor(tokens), past_key_values=cache, use_cache=True)
        return self._taps.take(hidden.last_hidden_state)


class StateReader:
    """Reads replies through a model, batch by batch."""

    def __init__(self, model: Any, tokenizer: Any, head: DetectorHead | None, layers: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._head = head
        self.layers = tuple(layers)
        self._together = SharedBeginning(model, Taps(model.model, self.layers))

    def read(self, replies: Sequence[LabelledReply], folder: Path, objectives: Sequence[str] = (OWN,)) -> SegmentStates:
        """States of all replies that fit, from `folder` where they are there already.

        `objectives` are those of the prompt, `OWN` for the reply's own. Their beginning, which all prompts have in
        common, is read once.
        """
        chunks = []
        for start in track(range(0, len(replies), _CHUNK), description=folder.name):
            chunk = replies[start : start + _CHUNK]
            name = hashlib.sha256(
                json.dumps([[reply.id for reply in chunk], self.layers, list(objectives)]).encode()
            ).hexdigest()
            path = folder / f"{name[:16]}.npz"
            if not path.exists():
                folder.mkdir(parents=True, exist_ok=True)
                self._write(path, chunk, objectives)
            with np.load(path) as stored:
                chunks.append((stored["states"], stored["scores"], stored["counts"]))
        # the number of segments of each reply, 0 for one that was too long
        counts = np.concatenate([chunk_counts for _, _, chunk_counts in chunks])
        fitting_replies = tuple(reply for reply, count in zip(replies, counts, strict=True) if count)
        starts = (0, *np.cumsum(counts[counts > 0]).tolist())
        states = np.concatenate([chunk_states for chunk_states, _, _ in chunks])
        scores = np.concatenate([chunk_scores for _, chunk_scores, _ in chunks])
        return SegmentStates(fitting_replies, states, scores, starts)

    def _write(self, path: Path, replies: Sequence[LabelledReply], objectives: Sequence[str]) -> None:
        """Read these replies, the shortest prompts first, and write their states to `path`."""
        prompts = [self._encode_prompt(reply, objectives) for reply in replies]
        fitting = [number for number, (tokens, _, _) in enumerate(prompts) if len(tokens) <= _LONGEST_PROMPT]
        states: dict[int, Any] = {}
        scores: dict[int, Any] = {}
        for batch in group_by_length([len(prompts[number][0]) for number in fitting], BATCH_TOKENS):
            numbers = [fitting[place] for place in batch]
            for number, (state, score) in zip(
                numbers, self._compute_states([prompts[n] for n in numbers]), strict=True
            ):
                states[number] = state
                scores[number] = score
        counts = [len(scores[number]) if number in scores else 0 for number in range(len(prompts))]
        draft = path.with_suffix(".part")
        with draft.open("wb") as file:
            read_numbers = sorted(states)
            np.savez(
                file,
                states=np.concatenate([states[n] for n in read_numbers]),
                scores=np.concatenate([scores[n] for n in read_numbers]),
                counts=np.array(counts),
            )
        draft.replace(path)

    def _encode_prompt(self, reply: LabelledReply, objectives: Sequence[str]) -> tuple[list[int], Spans, int]:
        """The tokens of a reply's prompt, their spans, and the index of the reply's own objective."""
        texts = [reply.objective if text == OWN else text for text in objectives]
        prompt = render(find_template("ultrafeedback"), question_of(reply), reply.answer, texts)
        encoded = self._tokenizer(
            prompt.text, return_offsets_mapping=True, split_special_tokens=True, add_special_tokens=True
        )
        spans = find_spans(prompt, split(reply.answer), encoded["offset_mapping"])
        return encoded["input_ids"], spans, objectives.index(OWN) if OWN in objectives else 0

    @torch.inference_mode()
    def _compute_states(self, batch: Sequence[tuple[list[int], Spans, int]]) -> list[tuple[Any, Any]]:
        """(states, scores) of each prompt's segments."""
        states = self._together.states([tokens for tokens, _, _ in batch])
        return [(_pool_segments(states[row], where), self._score(states[row], where, own))
                for row, (_, where, own) in enumerate(batch)]  # fmt: skip

    def _score(self, states: torch.Tensor, where: Spans, own: int) -> Any:
        """The general head's scores of the segments under the reply's own objective."""
        if self._head is None:
            return np.full(len(where.segments), np.nan, np.float32)
        layers = [self.layers.index(layer) for layer in self._head.layers.tolist()]
        return self._head.judge(states[:, [*layers, -1]], where)[:, own].numpy()


def _common_beginning(prompts: Sequence[list[int]]) -> list[int]:
    """The tokens with which all prompts begin; of the shortest prompt at least one token is left over."""
    first = min(prompts, key=len)
    differ = (at for at, tokens in enumerate(zip(*prompts, strict=False)) if len(set(tokens)) > 1)
    return first[: next(differ, len(first) - 1)]


def _pool_segments(states: torch.Tensor, where: Spans) -> Any:
    """Reduce the states of each segment's tokens to three: their mean, the last one, and the one before the segment.

    `states` is [tokens, layers, hidden] of one prompt; returns float16 [segments, 3, layers, hidden].
    """
    poolings = []
    for span in where.segments:
        mean = states[span.start : span.stop].float().mean(0)
        last = states[span.stop - 1].float()
        before = states[span.start - 1].float()
        poolings.append(torch.stack([mean, last, before]))
    return torch.stack(poolings).half().numpy()
