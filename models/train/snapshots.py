"""What a run leaves along its way: its weights at some shares of it, and the scores of answers that it never saw.

A long run on a borrowed machine says with them which of its moments is best, and whether a mean of its end with its
beginning is better still (models.train.blend). Weights are packed, adapter in bf16, as a folder that
models.train.export reads.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from aligner_proxy.engine.model.taught import LoadedHead, TaughtColumns
from aligner_proxy.engine.taught_head import unpack
from aligner_proxy.engine.weights.manifest import ADAPTER_WEIGHTS, TAUGHT
from aligner_proxy.prompts import find_template
from models.data.pairs import read_pairs

from .batches import group_by_length, pad_length
from .config import StageConfig
from .detector_loss import read_rows
from .features import EncodedExample, encode
from .network import Network
from .save import save

FOLDER = "snapshots"
SCORES = "scores.npz"
TAUGHT_SCORES = "taught"
"""Behind the name of a snapshot: the scores with the taught heads that `init` comes with."""


class Snapshots:
    """Keeps the weights of a run at some shares of it, in a folder below its `out`, and scores them."""

    def __init__(self, stage: StageConfig, network: Network, tokenizer: Any) -> None:
        self._stage = stage
        self._network = network
        self._tokenizer = tokenizer
        self._remaining_shares = sorted(stage.snapshots)
        self._first_weights = {name: tensor.clone() for name, tensor in _list_trained(network)} if stage.blends else {}
        self._watched_pairs = WatchedPairs(stage, tokenizer) if stage.watch else None
        self._scores: dict[str, Any] = {}

    def take_due(self, share: float, step: int) -> None:
        """Keep and score the weights if a snapshot is due.

        Before the first step they are only scored: they are the weights of `init`.
        """
        due = [one for one in self._remaining_shares if share >= one]
        if due:
            self._remaining_shares = [one for one in self._remaining_shares if one not in due]
            self._score_snapshot(f"step-{step}")
            if step:
                self._pack(f"step-{step}")

    def finish(self, step: int) -> None:
        """Keep and score the final weights, and score their means with the first weights.

        Does nothing where the stage asks for no snapshots.
        """
        if not self._stage.snapshots and not self._stage.blends:
            return
        self._score_snapshot(f"step-{step}")
        self._pack(f"step-{step}")
        for share in self._stage.blends:
            with self._blend_weights(share):
                self._score_snapshot(f"blend-{share:g}")

    @contextmanager
    def _blend_weights(self, share: float) -> Iterator[None]:
        """Within the block the network has the mean of its final and its first weights: `share` of the final ones."""
        ends = {name: tensor.clone() for name, tensor in _list_trained(self._network)}
        with torch.no_grad():
            for name, tensor in _list_trained(self._network):
                tensor.copy_(share * ends[name] + (1 - share) * self._first_weights[name])
            yield
            for name, tensor in _list_trained(self._network):
                tensor.copy_(ends[name])

    def _score_snapshot(self, name: str) -> None:
        """Score the watched pairs, and write the scores of all snapshots so far."""
        if self._watched_pairs:
            self._scores |= {
                f"{name}{end}": scores for end, scores in self._watched_pairs.scores(self._network).items()
            }
            folder = self._stage.out / FOLDER
            folder.mkdir(parents=True, exist_ok=True)
            np.savez_compressed(folder / SCORES, **self._scores)

    def _pack(self, name: str) -> None:
        """Write the weights as `name`.tar, the adapter in bf16."""
        folder = self._stage.out / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory() as drafts:
            draft = Path(drafts)
            save(self._stage, self._network, self._tokenizer, folder=draft)
            weights = draft / ADAPTER_WEIGHTS
            if weights.exists():
                state = {key: tensor.to(torch.bfloat16) for key, tensor in load_file(str(weights)).items()}
                save_file(state, str(weights), metadata={"format": "pt"})
            with tarfile.open(folder / f"{name}.tar", "w") as packed:
                for path in sorted(draft.iterdir()):
                    packed.add(path, path.name)


def _list_trained(network: Network) -> list[tuple[str, Tensor]]:
    return [(name, tensor) for name, tensor in network.named_parameters() if tensor.requires_grad]


class WatchedPairs:
    """Pairs that a run scores but never learns from."""

    def __init__(self, stage: StageConfig, tokenizer: Any) -> None:
        if stage.watch is None:
            raise TypeError("a stage that watches nothing has nothing to score")
        family = find_template(stage.template)
        self._examples = [encode(pair, tokenizer, family, with_target=False) for pair in read_pairs(stage.watch)]
        self._most = stage.batch_tokens
        path = stage.init / TAUGHT if stage.init else None
        self._heads = unpack(path.read_bytes()) if path and path.exists() else ()
        self._objectives = [pair.objectives for pair in read_pairs(stage.watch)] if self._heads else []

    @torch.no_grad()
    def scores(self, network: Network) -> dict[str, Any]:
        """The scores of every segment under every objective, pair after pair, in fp16.

        By the end of their name: "" for the general head, "/taught" with the heads that `init` comes with.
        """
        general: dict[int, Tensor] = {}
        taught_scores: dict[int, Tensor] = {}
        for numbers in group_examples(self._examples, self._most):
            group = [self._examples[n] for n in numbers]
            with torch.autocast(network.head.score.bias.device.type, torch.bfloat16):
                _, _, states = network.read(group)
            segments, objectives = read_rows(states, group)
            scores = network.head(segments, objectives)
            first_row = first_column = 0
            for number, example in zip(numbers, group, strict=True):
                own_rows = slice(first_row, first_row + len(example.spans.segments))
                own_scores = scores[own_rows, first_column : first_column + len(example.spans.objectives)].clone()
                general[number] = own_scores.cpu()
                if self._heads:
                    taught_scores[number] = self._judge_by_taught_heads(number, segments[own_rows], own_scores).cpu()
                first_row = own_rows.stop
                first_column += len(example.spans.objectives)
        return {"": flatten_scores(general)} | (
            {f"/{TAUGHT_SCORES}": flatten_scores(taught_scores)} if taught_scores else {}
        )

    def _judge_by_taught_heads(self, number: int, segments: Tensor, scores: Tensor) -> Tensor:
        """The scores of one pair, with taught heads in their objectives' columns."""
        columns = {
            place: LoadedHead.from_head(head, scores.device)
            for head in self._heads
            for place, text in enumerate(self._objectives[number])
            if text == head.objective
        }
        if columns:
            TaughtColumns(columns).judge(segments, scores)
        return scores


def group_examples(examples: Sequence[EncodedExample], most: int) -> Iterator[list[int]]:
    """Yield batches of example numbers. A batch has similar lengths and at most `most` tokens."""
    return group_by_length([len(example.ids) for example in examples], most, pad_length)


def flatten_scores(scores: Mapping[int, Tensor]) -> Any:
    """The scores of all pairs in one row, in fp16."""
    return torch.cat([scores[number].flatten() for number in sorted(scores)]).half().numpy()


def split_scores(scores: Any, shapes: Sequence[tuple[int, int]]) -> list[Tensor]:
    """Divide what `flatten_scores` wrote into the scores [segments, objectives] of each pair."""
    parts = torch.split(torch.from_numpy(scores).float(), [lines * columns for lines, columns in shapes])
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
