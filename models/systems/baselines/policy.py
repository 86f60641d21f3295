"""The policy model: loaded, asked, and given a fresh adapter by whoever trains it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from models.train.base_model import Precision, load_base

_AT_ONCE = 64


@dataclass
class PolicyModel:
    """A causal LM with its tokenizer. An answer has at most `new_tokens` tokens."""

    model: Any
    tokenizer: Any
    new_tokens: int

    @classmethod
    def load(cls, base: str, work: Path, precision: Precision, new_tokens: int) -> PolicyModel:
        """Load a base as `models.train.base_model.load_base` does."""
        model, tokenizer = load_base(base, work, precision)
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        tokenizer.padding_side = "left"
        model.get_output_embeddings().register_forward_pre_hook(_make_contiguous)
        return cls(model, tokenizer, new_tokens)

    def prompt(self, question: str, system: str = "") -> str:
        """The text before an answer, by the chat template where the tokenizer has one."""
        if self.tokenizer.chat_template is None:
            first = self.tokenizer.bos_token or ""
            return first + f"{system} Question: {question} Answer:".lstrip()
        turns = [{"role": "user", "content": question}]
        if system:
            turns.insert(0, {"role": "system", "content": system})
        return str(self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))

    @torch.no_grad()
    def write(self, prompts: Sequence[str], temperature: float = 0.0, seed: int = 0) -> list[str]:
        """The model's continuation of each prompt: greedy at temperature 0, else sampled by the seed."""
        self.model.eval()
        torch.manual_seed(seed)
        options: dict[str, Any] = {"do_sample": False}
        if temperature:
            options = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
        answers: list[str] = []
        for i in range(0, len(prompts), _AT_ONCE):
            batch = self.tokenizer(
                list(prompts[i : i + _AT_ONCE]), return_tensors="pt", padding=True, add_special_tokens=False
            )
            pad = self.tokenizer.pad_token_id
            ids = self.model.generate(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                max_new_tokens=self.new_tokens,
                pad_token_id=pad,
                **options,
            )
            new = ids[:, batch["input_ids"].shape[1] :]
            answers += [text.strip() for text in self.tokenizer.batch_decode(new, skip_special_tokens=True)]
        return answers

    def merge_adapter(self) -> None:
        """Merge a trained adapter into the weights, so that it belongs to the next stage's reference."""
        if hasattr(self.model, "merge_and_unload"):
            self.model = self.model.merge_and_unload()


def _make_contiguous(_: torch.nn.Module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
    """Copy the input of the output layer where it is a slice."""
    # Of a slice of the states, torch multiplies row by row, and copies frozen weights for each row: 20 GB for a
    # vocabulary of 262,144 and 64 questions.
    return (inputs[0].contiguous(),)
