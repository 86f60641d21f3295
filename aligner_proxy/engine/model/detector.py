"""Detector head: the log-odds that a segment of an answer violates an objective. A row is the numbers that the head
reads of a segment or of an objective.

A segment is represented by the model's hidden states in the prompt: the mean state of its tokens at some layers, and
the state after the final norm at its last token. An objective is represented by the mean state of its tokens at the
same layers. One prefill of the prompt yields all of them. The model is causal, so a segment's score never depends on
the text after it. The end of the answer is judged like a segment, to find missing text.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from aligner_proxy.engine.model.taught import TaughtColumns
from aligner_proxy.engine.model.teaching_space import NO_SPACE_NUMBERS, NUMBERS, PROJECTION, TeachingSpace
from aligner_proxy.engine.scheduling.sequence import Spans
from aligner_proxy.prompts import Prompt
from aligner_proxy.text.judged_words import judged_words
from aligner_proxy.text.structure import Segment
from aligner_proxy.types import SegmentEvidence

DEPTHS = (0.4, 0.67, 0.9)
"""Relative depths of the layers whose states are read; a text's meaning is clearest in the middle (docs/lab)."""
QUESTION_CHARS = 700
"""Last characters of a conversation that count as its question."""


def find_spans(prompt: Prompt, segments: Sequence[Segment], offsets: Sequence[tuple[int, int]]) -> Spans:
    """Find the tokens of objectives and segments; `offsets` are the (start, end) characters of the prompt's tokens.

    A segment without text stands for the end of the answer. Its tokens begin where those of the last segment begin,
    because the last sentence shows whether something is missing. A head that read only the prompt's last words learned
    whether an ending was asked for, but not whether the answer had it (docs/lab).
    """
    places = [(prompt.offset_in_prompt(segment.start), prompt.offset_in_prompt(segment.end)) for segment in segments]
    has_end = bool(segments) and not segments[-1].text
    if has_end:
        # the prompt's own words after the answer stand for its end
        places[-1] = (prompt.end, len(prompt.text))
    segment_ranges = [find_tokens(start, end, offsets) for start, end in places]
    if has_end:
        first_range = segment_ranges[-2] if len(segment_ranges) > 1 else segment_ranges[-1]
        segment_ranges[-1] = range(first_range.start, segment_ranges[-1].stop)
    objective_ranges = tuple(find_tokens(start, end, offsets) for start, end in prompt.objectives)
    # the conversation's last characters, if there is a conversation
    question_start = max(prompt.question, prompt.question_end - QUESTION_CHARS)
    question = None
    if question_start < prompt.question_end:
        question = find_tokens(question_start, prompt.question_end, offsets)
    return Spans(objective_ranges, tuple(segment_ranges), has_end, question=question)


def find_spans_with_words(prompt: Prompt, segments: Sequence[Segment], offsets: Sequence[tuple[int, int]]) -> Spans:
    """Find the tokens as `find_spans`, and those of inner words, which raise the score of their segment.

    Inner words are, for example, the cells of a table. A segment that they flag has to be judged again
    (`PieceScorer.judge_words`).
    """
    inner_words: list[tuple[range, ...]] = []
    for segment in segments:
        ranges: list[range] = []
        for start, end in judged_words(segment.text):
            prompt_start = prompt.offset_in_prompt(segment.start + start)
            prompt_end = prompt.offset_in_prompt(segment.start + end)
            ranges.append(find_tokens(prompt_start, prompt_end, offsets))
        inner_words.append(tuple(ranges))
    spans = find_spans(prompt, segments, offsets)
    return replace(spans, inner_words=tuple(inner_words)) if any(inner_words) else spans


def find_tokens(start: int, end: int, offsets: Sequence[tuple[int, int]]) -> range:
    """Return the tokens of the characters `start` to `end`, excluded, of a prompt, with all tokens of the last one.

    `offsets` are the (start, end) characters of each token: with `(0, 3), (3, 7), (7, 8)`, the characters 4 to 8 have
    the tokens `range(1, 3)`. A character such as an emoji may have several tokens, which then all have the same end.
    """
    last_token = len(offsets) - 1
    first = min(bisect_right(offsets, start, key=itemgetter(1)), last_token)
    last = min(max(first, bisect_left(offsets, end, key=itemgetter(1))), last_token)
    return range(first, max(last + 1, bisect_right(offsets, offsets[last][1], key=itemgetter(1))))


NEUTRAL_QUANTILE = 0.9
NEUTRAL_FLOOR = -1.0
"""Highest score in nats that an objective may give to neutral segments, at the `NEUTRAL_QUANTILE` of their scores. If
an objective scores them higher, all its scores are lowered by the difference."""


class Taps:
    """Records the outputs of some layers while the model runs. `model` has the decoder layers as `layers`."""

    def __init__(self, model: Any, layers: Sequence[int]) -> None:
        self._outputs: dict[int, Tensor] = {}  # of the last pass, by number of the layer
        self._layers = tuple(layers)
        for layer in self._layers:
            model.layers[layer].register_forward_hook(partial(self._record_output, layer))

    def _record_output(self, layer: int, _module: nn.Module, _inputs: object, output: Any) -> None:
        """Record the output of a layer. Torch calls this hook after the layer, at every pass."""
        self._outputs[layer] = output[0] if isinstance(output, tuple) else output

    def take(self, final: Tensor) -> Tensor:
        """Return the states of the last pass, [..., tokens, layers + 1, hidden], and clear them.

        `final` [..., tokens, hidden] are the states after the final norm, which come after those of the layers.
        """
        states = [self._outputs.pop(layer) for layer in self._layers]
        return torch.stack([*states, final], dim=-2)


class TappedStates:
    """The states that any of the heads reads, stored for every slot of the KV cache while a prompt is read."""

    def __init__(self, model: Any, heads: Sequence[DetectorHead | None], slots: int) -> None:
        all_layers = {layer for head in heads if head for layer in head.layers.tolist()}
        self.layers = sorted(all_layers)  # numbers of the layers that any head reads, ascending
        self.tensor: Tensor | None = None
        """States [slots, layers + 1, hidden size]; the last are those after the final norm."""
        if self.layers:
            self._taps = Taps(model.base_model, self.layers)
            shape = (slots, len(self.layers) + 1, model.config.hidden_size)
            self.tensor = torch.empty(shape, dtype=model.dtype, device=model.device)
        self._layers_of_head: list[list[int]] = []
        """For each head, the indices of its layers among the stored ones; the final norm's output is last."""
        for head in heads:
            head_layers = head.layers.tolist() if head else []
            self._layers_of_head.append([*(self.layers.index(layer) for layer in head_layers), -1] if head else [])

    def keep(self, slots: Tensor, hidden: Tensor) -> None:
        """Store the states of the last pass at these slots; `hidden` are those after the final norm."""
        if self.tensor is not None:
            self.tensor.index_copy_(0, slots, self._taps.take(hidden[None])[0])

    def read(self, slots: Tensor, head: int) -> Tensor:
        """Return the states of these slots, [tokens, layers + 1, size], at the layers that head number `head` reads."""
        assert self.tensor is not None
        return self.tensor[slots][:, self._layers_of_head[head]]


def choose_layers(config: Any) -> list[int]:
    """Return the indices of the layers at `DEPTHS` in a model with this transformers config, in order."""
    return sorted({int(share * (config.num_hidden_layers - 1)) for share in DEPTHS})


class DetectorHead(nn.Module):
    """Computes the log-odds, in nats, that a segment violates an objective, from projections of both and their product.

    A classifier on the segment's state alone learned in an hour what is odd, not what was asked for (docs/lab).
    `neutral` are projections of segments that violate no objective. Some objectives score higher on any text; their
    scores of neutral segments measure by how much.
    """

    layers: Tensor
    """Indices of the layers whose states the head reads."""
    neutral: Tensor
    floor: Tensor
    """Score up to which neutral segments lower nothing, in nats (`NEUTRAL_FLOOR`)."""
    ends: Tensor
    """Whether the head has learned to judge the end of the answer."""
    teaching_projection: Tensor
    """The projection of the aligner's teaching space, [coordinates, width of a row]; without coordinates if none."""
    teaching_numbers: Tensor
    """The numbers of this space."""
    end_shift: Tensor
    """Nats that are added to scores of the end of the answer, because its best threshold is another one."""

    def __init__(self, hidden_size: int, layers: Sequence[int], width: int = 192) -> None:
        """Make an untrained head with `width` hidden units, which reads the states of these layers of a model."""
        super().__init__()
        # a segment's row also has the state after the final norm
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
        self.register_buffer("teaching_projection", torch.zeros(0, segment_width, dtype=torch.float16))
        self.register_buffer("teaching_numbers", torch.tensor(NO_SPACE_NUMBERS))

    @classmethod
    def create_for_model(cls, config: Any) -> DetectorHead:
        """Create an untrained head for a model with this transformers config."""
        return cls(config.hidden_size, choose_layers(config))

    def fits(self, config: Any) -> bool:
        """Whether a model with this config has the head's width and all the layers that the head reads."""
        width = len(self.layers) * config.hidden_size
        return self.objective.in_features == width and bool(self.layers.max() < config.num_hidden_layers)

    def taps(self, model: Any) -> Taps:
        """Install hooks on the layers of `model` that this head reads."""
        return Taps(model, self.layers.tolist())

    def forward(self, segments: Tensor, objectives: Tensor) -> Tensor:
        """Compute log-odds [segments, objectives] from the rows of both, as `read` returns them."""
        projections = self.objective(objectives)
        scores = self._compare(self.segment(segments)[:, None], projections[None])
        return scores - self._measure_neutral(projections) if len(self.neutral) else scores

    def score_pairs(self, segments: Tensor, objectives: Tensor, is_pair: Tensor) -> Tensor:
        """Compute `forward(segments, objectives)[is_pair]`, the log-odds [pairs] of some pairs, for training."""
        rows, columns = is_pair.nonzero(as_tuple=True)
        projections = self.objective(objectives)
        scores = self._compare(self.segment(segments)[rows], projections[columns])
        return scores - self._measure_neutral(projections)[columns] if len(self.neutral) else scores

    def _measure_neutral(self, projections: Tensor) -> Tensor:
        """By how much each objective scores text that violates nothing too high: [objectives]."""
        neutral_scores = self._compare(self.neutral[:, None], projections[None]).quantile(NEUTRAL_QUANTILE, dim=0)
        return (neutral_scores - self.floor).clamp(min=0.0)

    def judge(self, states: Tensor, spans: Spans, taught_heads: TaughtColumns | None = None) -> Tensor:
        """Return the log-odds [segments, objectives] of one prompt with these `states` [tokens, layers + 1, hidden].

        Taught heads, if given, judge their own objectives, but not the end of the answer, because they do not learn
        what is missing.
        """
        scores, _ = self.judge_with_evidence(states, spans, taught_heads)
        return scores

    def judge_with_evidence(
        self, states: Tensor, spans: Spans, taught_heads: TaughtColumns | None = None
    ) -> tuple[Tensor, list[SegmentEvidence]]:
        """Return the scores of `judge`, and what each segment says of the answer as a whole (`find_evidence`).

        The end of the answer gives no evidence, and inner words count only with their segment.
        """
        inner_words = tuple(tokens for ranges in spans.inner_words for tokens in ranges)
        # inner words count as segments here; their rows come first
        rows, objectives = self.read(states, Spans(spans.objectives, inner_words + spans.segments))
        scores: Tensor = self(rows, objectives)
        count_without_end = len(rows) - spans.has_end
        evidence: list[SegmentEvidence] = []
        if taught_heads is not None and count_without_end:
            taught_heads.judge(rows[:count_without_end], scores[:count_without_end])
            question = read_rows(states, [spans.question]) if taught_heads.reads_question and spans.question else None
            evidence = taught_heads.find_evidence(rows[len(inner_words) : count_without_end], question)
        if spans.has_end:
            scores[-1] += self.end_shift
        return _raise_by_inner_words(scores, spans) if inner_words else scores, evidence

    @property
    def row_width(self) -> int:
        """How many numbers a segment's row has."""
        return self.segment.in_features

    @property
    def teaching_space(self) -> TeachingSpace:
        """The space in which heads of this aligner are taught; without coordinates if it comes with none."""
        return TeachingSpace.from_tensors(self.teaching_projection, self.teaching_numbers)

    def store_space(self, space: TeachingSpace) -> None:
        """Store the space in which heads are taught."""
        tensors = space.to_tensors()
        self.teaching_projection = tensors[PROJECTION]
        self.teaching_numbers = tensors[NUMBERS]

    def store_neutral(self, segments: Tensor) -> None:
        """Store segments that violate no objective; `segments` are their rows, as `read` returns them."""
        with torch.no_grad():
            self.neutral = self.segment(segments)

    def calibrate(self, shift: float, temperature: float, end_shift: float = 0.0) -> None:
        """Change the weights so that scores rise by `shift` nats and are then divided by `temperature`.

        Scores of the end of the answer rise by `end_shift` nats more.
        """
        with torch.no_grad():
            self.score.bias.add_(shift)
            self.floor.add_(shift)
            self.end_shift.add_(end_shift)
            for tensor in (self.score.bias, self.score.weight, self.floor, self.end_shift):
                tensor.div_(temperature)

    def _compare(self, segments: Tensor, objectives: Tensor) -> Tensor:
        """Compute log-odds from projected rows; of segments [n, 1, width] and objectives [1, m, width], for example."""
        segment_terms, segment_factors = segments.chunk(2, dim=-1)
        objective_terms, objective_factors = objectives.chunk(2, dim=-1)
        # heads are trained with the 4
        combined = segment_terms + objective_terms + segment_factors * objective_factors / 4
        scores: Tensor = self.score(F.gelu(combined)).squeeze(-1)
        return scores

    @staticmethod
    def read(states: Tensor, spans: Spans) -> tuple[Tensor, Tensor]:
        """Return the rows of segments and those of objectives, from a prompt's states [tokens, layers + 1, hidden]."""
        objectives = [states[tokens.start : tokens.stop, :-1].float().mean(0) for tokens in spans.objectives]
        return read_rows(states, spans.segments), normalise_states(torch.stack(objectives))

    def save(self, path: Path) -> None:
        """Write the weights as safetensors."""
        save_file({name: tensor.contiguous() for name, tensor in self.state_dict().items()}, str(path))

    @classmethod
    def load(cls, path: Path) -> DetectorHead:
        """Read a saved head; sizes come from the stored tensors. Raises KeyError if a required tensor is missing."""
        tensors = load_file(str(path))
        layers = tensors["layers"].tolist()
        width = tensors["score.weight"].shape[1]
        head = cls(tensors["objective.weight"].shape[1] // len(layers), layers, width)
        # heads that were saved by earlier versions lack some buffers
        for name, buffer in head.named_buffers():
            tensors.setdefault(name, buffer)
        # these two differ in size, and a tensor must have the stored size before it is loaded
        head.neutral = tensors["neutral"]
        head.teaching_projection = tensors["teaching_projection"]
        head.load_state_dict(tensors)
        return head.eval()


def read_rows(states: Tensor, token_ranges: Sequence[range]) -> Tensor:
    """Return the rows [texts, width] of texts in a prompt, each given by its tokens.

    `states` [tokens, layers + 1, hidden] are those of the prompt. A row has the mean state of the tokens at each layer,
    and the state after the final norm at the last token.
    """
    rows = [
        torch.cat([states[tokens.start : tokens.stop, :-1].float().mean(0), states[tokens[-1], -1:].float()])
        for tokens in token_ranges
    ]
    return normalise_states(torch.stack(rows))


def _raise_by_inner_words(scores: Tensor, spans: Spans) -> Tensor:
    """Return the segments' scores, raised to the highest of their inner words; these come first in `scores`."""
    raised_scores = scores[len(scores) - len(spans.segments) :].clone()
    first = 0
    for index, ranges in enumerate(spans.inner_words):
        if ranges:
            highest_of_words = scores[first : first + len(ranges)].amax(dim=0)
            raised_scores[index] = torch.maximum(raised_scores[index], highest_of_words)
            first += len(ranges)
    return raised_scores


def normalise_states(states: Tensor) -> Tensor:
    """Normalise states [texts, layers, hidden] per layer, and flatten them to rows [texts, layers * hidden]."""
    return F.layer_norm(states, states.shape[-1:]).flatten(1)
