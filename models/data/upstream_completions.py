"""Unchanged completions of real upstreams, on prompts that no stage of training saw; for evaluations only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from types import MappingProxyType

from . import preference_sets
from .answers import Side, load_pool, plain_query, preference_bags, prompt_key

STRONG = (
    "gpt4", "gpt4_1106_preview", "gpt-4-0125-preview", "gpt-4-turbo-2024-04-09", "gpt-4o-2024-05-13",
    "claude", "claude-2", "claude-2.1", "claude-3-opus-20240229", "claude-3-sonnet-20240229",
    "claude-3-5-sonnet-20240620", "gpt-3.5-turbo-0613", "gpt-3.5-turbo-1106", "gpt-3.5-turbo", "Claude-3-Sonnet",
)  # fmt: skip
# Models of 7B and thereabouts, and older ones of any size.
WEAK = (
    "LLaMA2-chat-70B", "Vicuna-7B", "Vicuna-13B",
    "alpaca-7b", "baize-v2-7b", "chatglm2-6b", "falcon-7b-instruct", "gemma-2b-it", "gemma-7b-it", "guanaco-7b",
    "llama-2-7b-chat-hf", "minichat-3b", "oasst-sft-pythia-12b", "phi-2-sft", "pythia-12b-mix-sft", "text_davinci_001",
    "text_davinci_003", "vicuna-7b", "zephyr-7b-beta",
)  # fmt: skip
LONGEST = 6000


@dataclass(frozen=True, slots=True)
class CompletionFile:
    """One file of completions: the template for the judge, and the objectives that the paper reports for it."""

    file: str
    family: str
    objectives: tuple[str, ...]


SOURCES = MappingProxyType(
    {
        "hh": CompletionFile("metaaligner_hh_outputs", "hh-rlhf", ("harmless", "helpful", "humour")),
        "ultrafeedback": CompletionFile(
            "metaaligner_ultrafeedback_outputs",
            "ultrafeedback",
            ("instruction-following", "honest", "truthful", "helpful"),
        ),
        "imhi": CompletionFile("imhi_outputs", "imhi", ("correct", "informative", "professional")),
        "alpaca": CompletionFile("alpaca_eval_outputs", "ultrafeedback", ("harmless", "helpful", "concise")),
    }
)
DIALOGUES = ("alpaca", "hh", "ultrafeedback")


@dataclass(frozen=True, slots=True)
class UpstreamCompletion:
    """What one upstream answered to one prompt; `source` is a name in `SOURCES`."""

    model: str
    query: str
    answer: str
    source: str = ""


def draw_completions(
    data_dir: Path, models: tuple[str, ...], each: int, seed: int, sources: tuple[str, ...] = DIALOGUES
) -> Iterator[UpstreamCompletion]:
    """Yield at most `each` random completions of each model, on prompts that no stage of training saw.

    An empty `models` stands for all models.
    """
    by_model: dict[str, list[UpstreamCompletion]] = {}
    trained_prompts = _collect_trained_prompts(data_dir)
    for name in sources:
        for completion in _read_completions(data_dir, name):
            included = not models or completion.model in models
            if (
                included
                and 0 < len(completion.answer) <= LONGEST
                and prompt_key(completion.query) not in trained_prompts
            ):
                by_model.setdefault(completion.model, []).append(completion)
    for model in sorted(by_model):
        yield from Random(f"{model}:{seed}").sample(by_model[model], min(each, len(by_model[model])))


def _read_completions(data_dir: Path, name: str) -> Iterator[UpstreamCompletion]:
    """All completions of one source."""
    file = SOURCES[name].file
    if file == "imhi_outputs":  # its prompts are called queries
        for row in preference_sets.read_rows(data_dir, file):
            yield UpstreamCompletion(row["model"], row["query"].strip(), row["output"].strip(), name)
        return
    for row in preference_sets.read_completions(data_dir, file):
        yield UpstreamCompletion(row["model"], plain_query(row["prompt"]), row["output"].strip(), name)


@cache
def _collect_trained_prompts(data_dir: Path) -> set[str]:
    """The keys of the prompts that training, or the choice of the operating point, has seen."""
    prompts: set[str] = set()
    sides: tuple[Side, ...] = ("train", "dev")
    for side in sides:
        pool = load_pool(data_dir, side)
        prompts |= {prompt_key(example.query) for example in pool.answers}
        prompts |= {prompt_key(example.query) for example in pool.run_ons}
        prompts |= {prompt_key(example.query) for example in pool.marked}
        prompts |= {prompt_key(example.query) for example in preference_bags(data_dir, side)}
    return prompts
