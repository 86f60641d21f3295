"""Rejection sampling: of k sampled corrections and the answer, the one with the best weighted reward is learned.

    python -m models.systems.meal.rejection runs/aligner_folder runs/data/pairs.jsonl \\
        --reader aligner_proxy/embedded --k 4 --seed 1 --out runs/data/best.jsonl

Rejection sampling for the next stage of `models.train`, as Meal has it (arXiv 2604.24178, of which only the abstract
was at hand). An aligner writes k corrections of each answer, the reader's detector head reads them, and what it says of
each objective counts as much as Meal's net lets that objective weigh for this prompt (all alike where the net is of
another aligner than the reader, or with `--uniform`). The reward is that of serving (`best_of.compute_cost` of the
plugin Meal): what is learned is what would be chosen.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from transformers import AutoModelForCausalLM, AutoTokenizer

from aligner_proxy import prompts
from aligner_proxy.cli.options import silence_libraries
from aligner_proxy.engine.api import AlignRequest, Engine
from aligner_proxy.engine.loader import EngineSettings, open_aligner, prepare
from aligner_proxy.engine.local import LocalEngine
from aligner_proxy.errors import StatesUnavailable
from aligner_proxy.pipeline.engine_encoder import EngineEncoder
from aligner_proxy.policy import config
from aligner_proxy.text.structure import split
from aligner_proxy.types import Policy, SegmentScore, Turn
from aligner_proxy_systems.meal import best_of
from aligner_proxy_systems.meal.selector import Weigher
from models.data.pairs import CHANGES, STAYS, Pair, read_pairs, write_pairs

from .ranks import Mean

Sample = Callable[[Pair, int], list[str]]
"""So many corrections of an answer."""
_PATIENCE_S = 600.0


@dataclass(frozen=True, slots=True)
class TargetChoice:
    """A pair with the target to learn. A cost is the expected number of wrong segments, as at serving."""

    pair: Pair
    original: float
    first: float
    best: float


class Sampler:
    """Writes corrections with an aligner folder, by the aligner's template. torch's seed decides the draws."""

    def __init__(self, folder: Path, temperature: float, home: Path) -> None:
        about, at = prepare(EngineSettings(folder, quantization="none"), home)
        self._family = prompts.find_template(about.template)
        self._temperature = temperature
        self._model: Any = AutoModelForCausalLM.from_pretrained(str(at), dtype=torch.float32).eval()
        self._tokenizer: Any = AutoTokenizer.from_pretrained(str(at))

    @torch.no_grad()
    def __call__(self, pair: Pair, k: int) -> list[str]:
        """`k` corrections, each at most one and a half times as long as the answer."""
        query = prompts.query_field(self._family, (Turn("user", pair.query),))
        prompt = prompts.render(self._family, query, pair.answer, pair.objectives)
        ids = self._tokenizer(prompt.text, return_tensors="pt").input_ids
        most = 8 + 3 * len(self._tokenizer(pair.answer, add_special_tokens=False).input_ids) // 2
        sampling = {"do_sample": True, "temperature": self._temperature, "num_return_sequences": k}
        mask = torch.ones_like(ids)
        pad = self._tokenizer.eos_token_id
        outputs = self._model.generate(ids, attention_mask=mask, max_new_tokens=most, pad_token_id=pad, **sampling)
        texts = self._tokenizer.batch_decode(outputs[:, ids.shape[1] :], skip_special_tokens=True)
        return [prompt.restore(text).strip() for text in texts]


async def choose_target(engine: Engine, pair: Pair, drafts: Sequence[str], *, uniform: bool) -> TargetChoice:
    """The pair with its cheapest draft as the target. The answer itself is among the drafts."""
    weights = await _compute_weights(engine, pair, uniform=uniform)
    original = await _score_segments(engine, pair, pair.answer)
    costs = {pair.answer: best_of.compute_cost(original, original, weights)}
    for text in dict.fromkeys(drafts):
        if text.strip() and text not in costs:
            costs[text] = best_of.compute_cost(await _score_segments(engine, pair, text), original, weights)
    first = next((costs[text] for text in drafts if text in costs), costs[pair.answer])
    target = min(costs, key=lambda text: costs[text])
    kept_pieces = {piece.text.strip() for piece in split(target)}
    labels = tuple(STAYS if piece.text.strip() in kept_pieces else CHANGES for piece in split(pair.answer))
    learned = replace(pair, target=target, labels=labels, kinds=(), source=f"rejection:{pair.source}")
    return TargetChoice(learned, costs[pair.answer], first, costs[target])


async def _score_segments(engine: Engine, pair: Pair, text: str) -> tuple[SegmentScore, ...]:
    """The engine's scores of a text's segments."""
    request = AlignRequest(
        request_id="rejection",
        turns=(Turn("user", pair.query),),
        answer=text,
        objectives=pair.objectives,
        score_only=True,
        deadline_s=_PATIENCE_S,
    )
    return (await engine.align(request)).segments


async def _compute_weights(engine: Engine, pair: Pair, *, uniform: bool) -> tuple[float, ...]:
    """What each objective weighs, as a multiple of an equal share."""
    alike = (1.0,) * len(pair.objectives)
    if uniform:
        return alike
    encoder = EngineEncoder(engine, Policy("rejection"), "rejection", _PATIENCE_S)
    try:
        weights = await Weigher().weights(pair.objectives, (Turn("user", pair.query),), encoder)
    except StatesUnavailable:
        return alike
    return tuple(weight * len(alike) for weight in weights) if weights else alike


async def choose_targets(
    engine: Engine, sample: Sample, pairs: Sequence[Pair], k: int, *, uniform: bool
) -> list[TargetChoice]:
    """The best of `k` drafts for every pair."""
    return [
        await choose_target(engine, pair, sample(pair, k), uniform=uniform)
        for pair in track(pairs, description="drafts")
    ]


def summarise(choices: Sequence[TargetChoice]) -> Iterator[str]:
    """Lines that say what the sampling changed, with intervals."""
    for name, values in (
        ("as it is", [choice.original for choice in choices]),
        ("the first draft", [choice.first for choice in choices]),
        ("the best of all", [choice.best for choice in choices]),
        ("best below first", [choice.first - choice.best for choice in choices]),
    ):
        yield f"{name}: {Mean.from_groups({str(i): [value] for i, value in enumerate(values)})}"
    edited = sum(choice.pair.target != choice.pair.answer for choice in choices)
    yield f"{edited} of {len(choices)} answers are changed by their target"


async def run(options: argparse.Namespace) -> list[TargetChoice]:
    """Sample drafts, score them, and choose the targets."""
    silence_libraries()
    torch.manual_seed(options.seed)
    sample = Sampler(options.aligner, options.temperature, config.home_folder())
    engine = LocalEngine(lambda: open_aligner(EngineSettings(options.reader), config.home_folder()))
    try:
        info = await engine.start()
        if not info.has_head:
            raise SystemExit(f"{options.reader} has no detector head, so it cannot tell drafts apart")
        pairs = list(islice(read_pairs(options.pairs), options.limit))
        return await choose_targets(engine, sample, pairs, options.k, uniform=options.uniform)
    finally:
        await engine.aclose()


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("aligner", type=Path, help="aligner folder that writes")
    parser.add_argument("pairs", type=Path, help="pairs; of these only query, objectives and answer count")
    parser.add_argument("--reader", type=Path, required=True, help="aligner folder with a head, which reads the drafts")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--k", type=int, default=4)
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--limit", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--uniform", action="store_true", help="all objectives weigh the same")
    options = parser.parse_args(argv)
    choices = asyncio.run(run(options))
    print(f"{options.out}: {write_pairs(options.out, (choice.pair for choice in choices))} pairs")
    if choices:
        print("\n".join(summarise(choices)))


if __name__ == "__main__":
    main()
