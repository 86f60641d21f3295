"""The model and its forward passes. A feed is the tokens of one sequence that a forward pass reads. A slot of the KV
cache holds the keys and values of one token, and the hidden states that detector heads read.

In the engine, only this folder, `gpu/` and the loading of weights handle tensors. The main operation is `run`: it feeds
tokens of several sequences in one forward pass and returns the token that the model chooses after each requested
position. `score_segments` and `read_rows` use the states that earlier passes stored.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from platform import machine
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from aligner_proxy.engine.gpu.graphs import Record, RecordedForwards
from aligner_proxy.engine.gpu.stack import Kernels, Stack, find_obstacle
from aligner_proxy.engine.gpu.step import BUCKETS, StepInput
from aligner_proxy.engine.model import attention, cpu_kernels, encoder
from aligner_proxy.engine.model.attention import AttentionPlan, KVStore
from aligner_proxy.engine.model.detector import DetectorHead, TappedStates
from aligner_proxy.engine.model.lora import Adapter, Adapters
from aligner_proxy.engine.model.taught import LoadedHead, LoadedHeads
from aligner_proxy.engine.model.threads import ThreadTuner
from aligner_proxy.engine.model.tokenizer import PromptTokenizer
from aligner_proxy.engine.scheduling.blocks import BLOCK, BlockPool
from aligner_proxy.engine.scheduling.draft_length import FLAT, Acceptance, CostCurve, choose_draft_length, needs_probe
from aligner_proxy.engine.scheduling.scheduler import Feed, Job
from aligner_proxy.engine.scheduling.sequence import Score, SegmentRow, Spans, TokenSequence
from aligner_proxy.engine.taught_head import TaughtHead
from aligner_proxy.engine.weights.memory import CACHE_TOKENS, STEP_TOKENS
from aligner_proxy.types import SegmentEvidence

_COMPARED_TOKENS = 8
_COMPARED_LAYERS = 4
"""Tokens and layers for which our stack is compared with the library's forward. In 16 bits, the rounding of many layers
adds up: with random weights in the shape of 13B, to more than the states themselves."""
_MAX_DIFFERENCE = 1e-4
_MAX_DIFFERENCE_IN_16_BITS = 0.05
"""Largest relative difference between the states of our stack and of the library, in fp32 and in 16 bits."""
_MIN_COSINE = 0.5
"""Smallest cosine between a token's states of our stack and of the library, which rounding alone never reaches."""


@dataclass(frozen=True, slots=True)
class AdapterWeights:
    """The own weights of an aligner that shares a base model: its adapter, and its heads if it has some."""

    adapter: Adapter
    head: DetectorHead | None
    taught_heads: Sequence[TaughtHead] = ()


@dataclass(frozen=True, slots=True)
class AlignerHeads:
    """The heads of one aligner: its detector head, and the taught heads with which it comes, by objective."""

    detector: DetectorHead | None
    taught_heads: Mapping[str, LoadedHead]

    @classmethod
    def load(
        cls, detector: DetectorHead | None, taught_heads: Sequence[TaughtHead], device: torch.device
    ) -> AlignerHeads:
        """Return the heads with their numbers on `device`."""
        loaded_heads = {head.objective: LoadedHead.from_head(head, device) for head in taught_heads}
        return cls(detector.to(device) if detector else None, loaded_heads)


class ModelRunner:
    """Runs one causal language model with its detector head, and adapters over the same model with their own heads.
    Adapters are numbered: 0 is the model without adapter, and those of `others` count from 1.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PromptTokenizer,
        head: DetectorHead | None,
        cache_tokens: int = CACHE_TOKENS,
        others: Sequence[AdapterWeights] = (),
        taught_heads: Sequence[TaughtHead] = (),
    ) -> None:
        model.train(mode=False)
        self._model = model
        self._adapters = Adapters(model, [other.adapter for other in others], model.dtype, model.device)
        # by number of the adapter
        self.heads = [AlignerHeads.load(head, taught_heads, model.device)]
        self.heads += [AlignerHeads.load(other.head, other.taught_heads, model.device) for other in others]
        self.loaded_heads = LoadedHeads(model.device)  # the taught heads that clients have uploaded
        self.tokenizer = tokenizer
        self.costs: CostCurve = FLAT  # replaced by the loader, once the machine is measured
        self._last_sequence_count = 1
        """Number of sequences in the last step."""
        # on a GPU the number of threads is not tuned
        self._threads = ThreadTuner(
            1 if model.device.type == "cuda" else torch.get_num_threads(), torch.set_num_threads
        )
        # rounded up to whole blocks
        self.pool = BlockPool(-(-cache_tokens // BLOCK))
        slots = self.pool.count * BLOCK
        # keys and values, and hidden states, of all slots; one block more, for the padding of recorded forward passes
        self._store = KVStore(model.config, slots + BLOCK, model.dtype, model.device)
        self._states = TappedStates(model, [heads.detector for heads in self.heads], slots + BLOCK)
        self.recorded: RecordedForwards | None = None
        """The forward passes of our own stack; None if the library's are used."""

    @property
    def device(self) -> str:
        return str(self._model.device)

    @property
    def machine(self) -> str:
        """The text under which costs are stored: everything but the weights on which the cost of a pass depends."""
        device = self._model.device
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else _find_cpu_name()
        mode = "recorded forward passes" if self.recorded else f"up to {self._threads.most} threads"
        return f"{name}, {mode}, {self._model.dtype}, torch {torch.__version__}"

    @property
    def step_tokens(self) -> int:
        """Most tokens per forward pass; fewer on a CPU, because fewer keep it busy and each token takes memory."""
        return STEP_TOKENS if self._model.device.type == "cuda" else STEP_TOKENS // 4

    @property
    def positions(self) -> int:
        """Longest sequence, in tokens, that the model's position embeddings support."""
        return int(self._model.config.max_position_embeddings)

    def choose_draft_length(self, acceptance: Acceptance, room: int) -> int:
        """Return the best length of a draft, at most `room`, if the next step has as many sequences as the last one."""
        return choose_draft_length(self.costs, acceptance, room, self._last_sequence_count)

    def needs_probe(self, prompt_length: int, room: int) -> bool:
        """Whether to score the segments before a first draft of `room` tokens: if a wrong draft would cost too much, or
        prompt and draft exceed the tokens of one step.
        """
        return prompt_length + room > self.step_tokens or needs_probe(self.costs, room, self._last_sequence_count)

    @torch.inference_mode()
    def run(self, feeds: Sequence[Feed]) -> list[list[int]]:
        """Run all feeds in one forward pass; return, for each feed, the tokens chosen after its requested positions."""
        self._last_sequence_count = len(feeds)
        if self.recorded is not None and self.recorded.can_run(feeds):
            return self.recorded.run(feeds)
        ids = [token for feed in feeds for token in feed.job.sequence.ids[feed.start : feed.stop]]
        places = [place for feed in feeds for place in range(feed.start, feed.stop)]
        contexts = [self._find_slots(feed) for feed in feeds]
        new_counts = [feed.stop - feed.start for feed in feeds]
        adapters = [feed.job.sequence.adapter for feed in feeds]
        adapter_rows = zip(adapters, new_counts, strict=True)
        with self._threads.choose_threads_for(len(ids)), self._adapters.assign_rows(adapter_rows):
            plan = attention.plan_attention(self._store, contexts, new_counts)
            hidden = self._forward(ids, places, plan)
            # detector heads read prompts only
            if any(feed.start < feed.job.prompt_length for feed in feeds):
                self._states.keep(plan.slots, hidden)
            return self._choose_tokens(hidden, feeds)

    # not `inference_mode`: the joined weights outlive this, and adapters may be merged into them
    @torch.no_grad()
    def use_recorded(self, kernels: Kernels, record: Record) -> str | None:
        """Run steps through a stack of our own from now on; return why this is not possible, in a few words, or None.

        The stack's result for a few tokens must be that of the library's forward, except for rounding. `record` turns a
        function into a replay of it (graphs.py).
        """
        obstacle = find_obstacle(self._model)
        if obstacle:
            return obstacle
        config: Any = self._model.config
        padding_slot = self.pool.count * BLOCK
        sample = self._make_sample(min(_COMPARED_TOKENS, padding_slot))
        expected = self._read_few_layers(sample)
        # no sequence is longer than the whole cache
        positions = min(self.positions, padding_slot)
        device = self._model.device
        stack = Stack(self._model, kernels, self._store.tensors, positions, self._states.layers, self._states.tensor)
        step_input = StepInput(positions, config.num_attention_heads, config.num_key_value_heads, padding_slot, device)
        recorded = RecordedForwards(stack, step_input, record, self.step_tokens)
        states = recorded.run_layers(sample, _COMPARED_LAYERS).float()
        difference = float((states - expected).norm() / expected.norm())
        max_difference = _MAX_DIFFERENCE if self._model.dtype == torch.float32 else _MAX_DIFFERENCE_IN_16_BITS
        # `not <=`, because a difference that is not a number must count as too large
        if not difference <= max_difference:
            return f"results that differ from the library's by {difference:.2g}"
        self.recorded = recorded
        return None

    @torch.inference_mode()
    def check_recorded(self) -> str | None:
        """Compare a recorded forward of every size with the library's; return what differs, in a few words, or None.

        If one differs, none is used any more. The compared texts are written to the first blocks of the cache.
        """
        if self.recorded is None:
            return None
        longest = min(self.step_tokens, self.positions, self.pool.count * BLOCK)
        for rows in BUCKETS[: bisect_right(BUCKETS, longest)]:
            sample = self._make_sample(rows)
            expected = self._read_few_layers(sample)
            states = self.recorded.run_layers(sample, _COMPARED_LAYERS).float()
            # a cosine that is not a number does not count as similar
            is_similar = (F.cosine_similarity(states, expected) > _MIN_COSINE).all()
            self.recorded.run([sample])
            is_finite = self.recorded.stack.hidden[:rows].isfinite().all()
            if not bool(is_similar and is_finite):
                self.recorded = None
                return f"results for {rows} tokens that differ from the library's"
        return None

    def _make_sample(self, count: int) -> Feed:
        """Return a feed of `count` arbitrary tokens, in the first blocks of the cache."""
        vocabulary_size = int(self._model.config.vocab_size)
        ids = [(17 + 7 * place) % vocabulary_size for place in range(count)]
        sequence = TokenSequence(ids=ids, blocks=list(range(-(-count // BLOCK))))
        no_work: Any = iter(())
        return Feed(Job("compare", no_work, lambda _: None, sequence=sequence), 0, count)

    def _read_few_layers(self, sample: Feed) -> Tensor:
        """Return the library's states [tokens, hidden size] of a text, after a few layers and the final norm."""
        ids = sample.job.sequence.ids
        config: Any = self._model.config
        places = torch.arange(len(ids), device=self._model.device)
        plan = attention.plan_attention(self._store, [places], [len(ids)])
        layer_count = config.num_hidden_layers
        # the library runs as many layers as its config says
        config.num_hidden_layers = min(layer_count, _COMPARED_LAYERS)
        try:
            return self._forward(ids, places.tolist(), plan).float()
        finally:
            config.num_hidden_layers = layer_count

    @torch.inference_mode()
    def score_segments(self, feed: Feed, spans: Spans) -> tuple[list[Score], list[SegmentEvidence]]:
        """Return score and evidence of every segment of a prompt that was fed; both empty without a detector head."""
        head = self.heads[feed.job.sequence.adapter].detector
        if head is None:
            return [], []
        taught_heads = feed.job.ask.taught_heads if feed.job.ask else None
        scores, evidence = head.judge_with_evidence(self._read_states(feed), spans, taught_heads)
        highest = scores.max(dim=-1)
        return list(zip(highest.values.tolist(), highest.indices.tolist(), strict=True)), evidence

    @torch.inference_mode()
    def read_rows(self, feed: Feed, spans: Spans) -> list[SegmentRow]:
        """Return the row, and the scores by the aligner's own head, of every segment of a prompt that has been fed."""
        head = self.heads[feed.job.sequence.adapter].detector
        if head is None:
            return []
        rows, objectives = head.read(self._read_states(feed), spans)
        # rows are sent in 16 bits, little-endian on every machine
        numbers = rows.half().cpu().numpy().astype("<f2")
        scores_of_rows = head(rows, objectives).tolist()
        return [SegmentRow(row.tobytes(), tuple(scores)) for row, scores in zip(numbers, scores_of_rows, strict=True)]

    def _read_states(self, feed: Feed) -> Tensor:
        """Return the stored states of all tokens up to the end of a feed, at the layers of this aligner's head."""
        return self._states.read(self._find_slots(feed), feed.job.sequence.adapter)

    @property
    def layers(self) -> int:
        return int(self._model.config.num_hidden_layers)

    @torch.inference_mode()
    def encode(self, texts: Sequence[list[int]], layers: Sequence[int], adapter: int = 0) -> Tensor:
        """Return rows [texts, layers * hidden] of texts that are read separately (encoder.py)."""
        longest = max(len(encoder.shorten_ids(ids)) for ids in texts)
        with self._threads.choose_threads_for(longest * len(texts)), self._adapters.assign_rows([(adapter, longest)]):
            return encoder.encode(self._model, texts, layers)

    def _forward(self, ids: list[int], places: list[int], plan: AttentionPlan) -> Tensor:
        """Run the model with our attention; return the hidden states after the final norm, [tokens, hidden size]."""
        device = self._model.device
        config: Any = self._model.config
        library_attention = config._attn_implementation
        config._attn_implementation = attention.IMPLEMENTATION
        try:
            output = self._model.base_model(
                torch.tensor([ids], device=device),
                position_ids=torch.tensor([places], device=device),
                use_cache=False,
                plan=plan,
            )
        finally:
            config._attn_implementation = library_attention
        hidden: Tensor = output.last_hidden_state[0]
        return hidden

    def _find_slots(self, feed: Feed) -> Tensor:
        """Return the slots of all tokens of a sequence up to the end of a feed."""
        blocks = torch.tensor(feed.job.sequence.blocks, device=self._model.device)
        slots_of_blocks = blocks[:, None] * BLOCK + torch.arange(BLOCK, device=blocks.device)
        return slots_of_blocks.flatten()[: feed.stop]

    def _choose_tokens(self, hidden: Tensor, feeds: Sequence[Feed]) -> list[list[int]]:
        """Return the greedy tokens of each feed at its requested positions; logits are computed for these only."""
        choice_counts = [len(feed.choice_positions) for feed in feeds]
        rows: list[int] = []  # the requested positions, the last ones of each feed, among the tokens of the step
        stop = 0
        for feed, choice_count in zip(feeds, choice_counts, strict=True):
            stop += feed.stop - feed.start
            rows += range(stop - choice_count, stop)
        if not rows:
            return [[] for _ in feeds]
        output: nn.Module = self._model.get_output_embeddings()  # type: ignore[no-untyped-call]
        logits = torch.split(cpu_kernels.compute_logits(output, hidden[rows]), choice_counts)
        return [_choose_greedily(feed_logits, feed) for feed_logits, feed in zip(logits, feeds, strict=True)]


def _find_cpu_name() -> str:
    """Return the CPU's name (its architecture if unknown), plus ", AMX" if it has these instructions."""
    info_file = Path("/proc/cpuinfo")
    lines = info_file.read_text().splitlines() if info_file.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else machine()
    return f"{name}, AMX" if cpu_kernels.has_amx() else name


def _choose_greedily(logits: Tensor, feed: Feed) -> list[int]:
    """Return the token with the highest logit of each row, or the row's favoured token (see `Ask`)."""
    ask = feed.job.ask
    if not len(logits):
        return []
    best, tokens = logits.max(dim=-1)
    if ask is not None and ask.caution > 0:
        # a draft may be fed in several steps; then the rows of this feed begin within it
        first = feed.choice_positions.start - feed.job.first_choice
        favoured = ask.favoured[first : first + len(logits)]
        if favoured:
            favoured_ids = torch.tensor(favoured, device=logits.device)
            # at the end of the text that drafts are taken from, the last rows have no favoured token
            rows = slice(len(favoured))
            raised_logits = logits[rows].gather(1, favoured_ids[:, None])[:, 0] + ask.caution
            tokens[rows] = torch.where(raised_logits >= best[rows], favoured_ids, tokens[rows])
    token_ids: list[int] = tokens.tolist()
    return token_ids
