"""Detector head: the log-odds that a segment of an answer violates an objective.

A segment is represented by the model's hidden states in the prompt: the mean state of its tokens at some layers, and
the state after the final norm at its last token. An objective is represented by the mean state of its tokens at the
same layers. One prefill of the prompt yields all of them. The model is causal, so a segment's score never depends on
the text after it.

The end of the answer is judged like a segment, to find missing text. It is represented by the last segment together
with the prompt's own words after the answer.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from aligner_proxy.engine.model.taught import TaughtColumns
from aligner_proxy.engine.scheduling.sequence import Spans
from aligner_proxy.prompts import Prompt
from aligner_proxy.text.judged_words import judged_words
from aligner_proxy.text.structure import Segment
from aligner_proxy.types import SegmentEvidence

DEPTHS = (0.4, 0.67, 0.9)
"""Relative heights of the layers whose states are read; a text's meaning is clearest in the middle (docs/lab)."""
QUESTION_CHARS = 700
"""Last characters of a conversation that count as its question."""


def find_spans(prompt: Prompt, segments: Sequence[Segment], offsets: Sequence[tuple[int, int]]) -> Spans:
    """Find the tokens of objectives and segments; `offsets` are the (start, end) characters of the prompt's tokens.

    A segment without text means the end of the answer. Its tokens begin where those of the last segment begin, because
    the last sentence shows whether something is missing. A head that read only the prompt's last words learned whether
    an ending was asked for, but not whether it was there (docs/lab).
    """
    places = [(prompt.offset_in_prompt(segment.start), prompt.offset_in_prompt(segment.end)) for segment in segments]
    has_end = bool(segments) and not segments[-1].text
    if has_end:
        # the prompt's own words after the answer stand for its end
        *ranges, closing = _find_ranges([*places[:-1], (prompt.end, len(prompt.text))], offsets)
        last_segment = ranges[-1] if ranges else closing
        tokens = (*ranges, range(last_segment.start, closing.stop))
    else:
        tokens = _find_ranges(places, offsets)
    return Spans(_find_ranges(prompt.objectives, offsets), tokens, has_end, question=find_question(prompt, offsets))


def find_question(prompt: Prompt, offsets: Sequence[tuple[int, int]]) -> range | None:
    """The tokens of the conversation's last `QUESTION_CHARS` characters; None without a conversation."""
    end = prompt.question_end
    start = max(prompt.question, end - QUESTION_CHARS)
    return find_tokens(start, end, offsets) if start < end else None


def find_spans_with_words(prompt: Prompt, segments: Sequence[Segment], offsets: Sequence[tuple[int, int]]) -> Spans:
    """Find the tokens as `find_spans`, and those of the words of each segment that are judged by themselves, too.

    Such words raise the score of their segment, so what they flag has to be judged again (`AnswerEditor.judge_words`).
    """
    inner = tuple(_find_inner_ranges(prompt, segment, offsets) for segment in segments)
    spans = find_spans(prompt, segments, offsets)
    return replace(spans, inner_words=inner) if any(inner) else spans


def _find_inner_ranges(prompt: Prompt, segment: Segment, offsets: Sequence[tuple[int, int]]) -> tuple[range, ...]:
    """The tokens of words in a segment that are judged by themselves, too."""
    return tuple(
        find_tokens(
            prompt.offset_in_prompt(segment.start + start), prompt.offset_in_prompt(segment.start + end), offsets
        )
        for start, end in judged_words(segment.text)
    )


def find_tokens(start: int, end: int, offsets: Sequence[tuple[int, int]]) -> range:
    """The tokens of the characters `start` to `end` of a prompt, with all tokens of the last character.

    `offsets` are the (start, end) characters of each token. A character such as an emoji may have several tokens.
    """
    last_token = len(offsets) - 1
    first = min(bisect_right(offsets, start, key=itemgetter(1)), last_token)
    last = min(max(first, bisect_left(offsets, end, key=itemgetter(1))), last_token)
    return range(first, max(last + 1, bisect_right(offsets, offsets[last][1], key=itemgetter(1))))


def _find_ranges(pieces: Sequence[tuple[int, int]], offsets: Sequence[tuple[int, int]]) -> tuple[range, ...]:
    """Map ascending (start, end) pieces of text to token ranges, each up to the token with the piece's last character.

    Tokens of the characters `(0, 3), (3, 7), (7, 8)` and the piece `(4, 8)` give `range(1, 3)`.

    A token that reaches over a border is in both ranges. A character may have several tokens, which then all have the
    same end.
    """
    ranges = []
    token = 0
    last = len(offsets) - 1
    for start, end in pieces:
        while token < last and offsets[token][1] <= start:
            token += 1
        first = token
        while token < last and (offsets[token][1] < end or offsets[token + 1][1] == offsets[token][1]):
            token += 1
        ranges.append(range(first, token + 1))
    return tuple(ranges)


NEUTRAL_QUANTILE = 0.9
NEUTRAL_FLOOR = -1.0
"""Highest score in nats that an objective may give to neutral segments, at their `NEUTRAL_QUANTILE`. If an objective
scores them higher, all its scores are lowered by the difference."""


class Taps:
    """Records the outputs of some layers while the model runs; `model` is the stack of decoder layers."""

    def __init__(self, model: Any, layers: Sequence[int]) -> None:
        self._outputs: dict[int, Tensor] = {}  # of the last pass, by number of the layer
        self._layers = tuple(layers)
        for layer in self._layers:
            model.layers[layer].register_forward_hook(self._make_hook(layer))

    def _make_hook(self, layer: int) -> Any:
        """The hook that records the output of this layer at every pass."""

        def hook(_module: nn.Module, _inputs: object, output: Any) -> None:
            self._outputs[layer] = output[0] if isinstance(output, tuple) else output

        return hook

    def take(self, final: Tensor) -> Tensor:
        """Return the states of the last pass, [..., tokens, layers + 1, hidden], with `final` last, and clear them."""
        states = [self._outputs.pop(layer) for layer in self._layers]
        return torch.stack([*states, final], dim=-2)


def choose_layers(config: Any) -> list[int]:
    """The layer numbers at `DEPTHS` in a model with this transformers config."""
    return sorted({int(share * (config.num_hidden_layers - 1)) for share in DEPTHS})


class DetectorHead(nn.Module):
    """Log-odds (nats) that a segment violates an objective, computed from projections of both and their product.

    A classifier on the segment's state alone learned in an hour what is odd, not what was asked for (docs/lab).
    `neutral` are projections of segments that violate no objective. Some objectives score higher on any text; their
    scores of neutral segments measure by how much.
    """

    layers: Tensor
    """Numbers of the layers whose states the head reads."""
    neutral: Tensor
    floor: Tensor
    """Score up to which neutral segments lower nothing, in nats (`NEUTRAL_FLOOR`)."""
    ends: Tensor
    """Whether the head has learned to judge the end of the answer."""
    end_shift: Tensor
    """Nats added to scores of the end of the answer, which needs its own operating point."""

    def __init__(self, hidden_size: int, layers: Sequence[int], width: int = 192) -> None:
        super().__init__()
        # a segment also has the state after the final norm
        segment_width = (len(layers) + 1) * hidden_size
        objective_width = len(layers) * hidden_size
        self.register_buffer("layers", torch.tensor(list(layers)))
        self.segment = nn.Linear(segment_width, 2 * width)
        # twice the width: one half is added, the other multiplied (`_compare`)
        self.objective = nn.Linear(objective_width, 2 * width)
        self.score = nn.Linear(width, 1)
        self.register_buffer("neutral", torch.zeros(0, 2 * width))
        self.register_buffer("floor", torch.tensor(NEUTRAL_FLOOR))
        self.register_buffer("ends", torch.tensor(False))
        self.register_buffer("end_shift", torch.tensor(0.0))

    @classmethod
    def create_for_model(cls, config: Any) -> DetectorHead:
        """Create an untrained head for a model with this transformers config."""
        return cls(config.hidden_size, choose_layers(config))

    def fits(self, config: Any) -> bool:
        """Whether a model with this config has the head's width and all the layers it reads."""
        width = len(self.layers) * config.hidden_size
        return self.objective.in_features == width and bool(self.layers.max() < config.num_hidden_layers)

    def taps(self, model: Any) -> Taps:
        """Install hooks on the layers of `model` that this head reads."""
        return Taps(model, self.layers.tolist())

    def forward(self, segments: Tensor, objectives: Tensor) -> Tensor:
        """Compute log-odds [segments, objectives] from rows of `read`, in fp32 whatever the input type."""
        projections = self.objective(objectives)
        scores = self._compare(self.segment(segments), projections)
        if len(self.neutral):
            # how high each objective scores text that violates nothing
            neutral_scores = self._compare(self.neutral, projections).quantile(NEUTRAL_QUANTILE, dim=0)
            scores = scores - (neutral_scores - self.floor).clamp(min=0.0)
        return scores

    def judge(self, states: Tensor, spans: Spans, taught_heads: TaughtColumns | None = None) -> Tensor:
        """Log-odds [segments, objectives] of one prompt with these hidden states, by the taught heads if there are any.

        Only the general head judges the end of the answer (the last row, with `end_shift` added), because
        taught heads do not learn what is missing.
        """
        return self.judge_with_evidence(states, spans, taught_heads)[0]

    def judge_with_evidence(
        self, states: Tensor, spans: Spans, taught_heads: TaughtColumns | None = None
    ) -> tuple[Tensor, list[SegmentEvidence]]:
        """Return the scores of `judge`, and what each segment says of the answer as a whole (`find_evidence`).

        The end of the answer says nothing of it, and inner words count only with their segment.
        """
        inner = tuple(tokens for ranges in spans.inner_words for tokens in ranges)
        rows, objectives = self.read(states, Spans(spans.objectives, inner + spans.segments))
        scores: Tensor = self(rows, objectives)
        segment_count = len(rows) - spans.has_end
        evidence: list[SegmentEvidence] = []
        if taught_heads is not None and segment_count:
            taught_heads.judge(rows[:segment_count], scores[:segment_count])
            question = read_rows(states, [spans.question]) if taught_heads.reads_question and spans.question else None
            evidence = taught_heads.find_evidence(rows[len(inner) : segment_count], question)
        if spans.has_end:
            scores[-1] += self.end_shift
        return _raise_by_inner(scores, spans) if inner else scores, evidence

    @property
    def row_width(self) -> int:
        """Numbers in a segment's row of `read`."""
        return self.segment.in_features

    def store_neutral(self, segments: Tensor) -> None:
        """Store segments that violate no objective, given as rows of `read`."""
        with torch.no_grad():
            self.neutral = self.segment(segments)

    def calibrate(self, shift: float, temperature: float, end_shift: float = 0.0) -> None:
        """Change the weights: scores rise by `shift` nats (ends by `end_shift` more), then shrink by `temperature`."""
        with torch.no_grad():
            self.score.bias.add_(shift)
            self.floor.add_(shift)
            self.end_shift.add_(end_shift)
            for tensor in (self.score.bias, self.score.weight, self.floor, self.end_shift):
                tensor.div_(temperature)

    def _compare(self, segments: Tensor, objectives: Tensor) -> Tensor:
        """Compute log-odds [segments, objectives] from projected rows, which have two halves.

        The first half of a segment's row is added to that of the objective's row, the second multiplied by its second.
        """
        segment, segment_factor = segments[:, None].chunk(2, dim=-1)
        objective, objective_factor = objectives[None].chunk(2, dim=-1)
        # the 4 is part of the form in which heads are trained
        combined = segment + objective + segment_factor * objective_factor / 4
        scores: Tensor = self.score(F.gelu(combined)).squeeze(-1)
        return scores

    @staticmethod
    def read(states: Tensor, spans: Spans) -> tuple[Tensor, Tensor]:
        """Return (segments, objectives) as rows for `forward`, from a prompt's states [tokens, layers + 1, hidden]."""
        objectives = [states[tokens.start : tokens.stop, :-1].float().mean(0) for tokens in spans.objectives]
        return read_rows(states, spans.segments), normalise_states(torch.stack(objectives))

    def save(self, path: Path) -> None:
        """Write the weights as safetensors."""
        save_file({name: tensor.contiguous() for name, tensor in self.state_dict().items()}, str(path))

    @classmethod
    def load(cls, path: Path) -> DetectorHead:
        """Read a saved head; sizes come from the stored tensors. Raises KeyError if a required tensor is missing."""
        state = load_file(str(path))
        layers = state["layers"].tolist()
        width = state["score.weight"].shape[1]
        head = cls(state["objective.weight"].shape[1] // len(layers), layers, width)
        # heads that were saved by earlier versions lack these tensors
        state.setdefault("floor", head.floor)
        state.setdefault("ends", head.ends)
        state.setdefault("end_shift", head.end_shift)
        # the number of neutral segments differs, and a tensor must have the stored size before it is loaded
        head.neutral = state.setdefault("neutral", head.neutral)
        head.load_state_dict(state)
        return head.eval()


def read_rows(states: Tensor, token_ranges: Sequence[range]) -> Tensor:
    """The rows [texts, width] of these tokens of a prompt, whose states are [tokens, layers + 1, hidden]."""
    rows = [
        torch.cat([states[tokens.start : tokens.stop, :-1].float().mean(0), states[tokens[-1], -1:].float()])
        for tokens in token_ranges
    ]
    return normalise_states(torch.stack(rows))


def _raise_by_inner(scores: Tensor, spans: Spans) -> Tensor:
    """The scores of the segments, raised to those of their inner words; in `scores`, the inner words come first."""
    raised = scores[len(scores) - len(spans.segments) :].clone()
    first = 0
    for number, ranges in enumerate(spans.inner_words):
        if ranges:
            words = scores[first : first + len(ranges)].amax(dim=0)
            raised[number] = torch.maximum(raised[number], words)
            first += len(ranges)
    return raised


def normalise_states(states: Tensor) -> Tensor:
    """Normalise states [parts, layers, hidden] per layer, and flatten them to rows."""
    return F.layer_norm(states, states.shape[-1:]).flatten(1)
