"""A tiny random Llama with a tokenizer of its own, made in the test: real code paths, milliseconds a forward."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from aligner_proxy import prompts
from aligner_proxy.engine.api import AlignerInfo, AlignRequest
from aligner_proxy.engine.decoding.aligner import Aligner
from aligner_proxy.engine.decoding.proposer import DraftProposer
from aligner_proxy.engine.decoding.speculative import Tally, WritingLimits, WrittenTokens, generate
from aligner_proxy.engine.loop import Loop
from aligner_proxy.engine.model.detector import DetectorHead
from aligner_proxy.engine.model.lora import LoraDelta
from aligner_proxy.engine.model.runner import AdapterWeights, ModelRunner
from aligner_proxy.engine.model.tokenizer import PromptTokenizer
from aligner_proxy.engine.scheduling.draft_length import Acceptance, LengthRule
from aligner_proxy.engine.scheduling.scheduler import Job
from aligner_proxy.engine.scheduling.sequence import Ask, TokenSequence
from aligner_proxy.types import Turn, Verify

torch.set_num_threads(1)

CORPUS = [
    "The harbour opens at six and the first ferry leaves at seven.",
    "You are a fool if you take the second one. Bring a coat.",
    "1. Boil the water.\n2. Add the rice.\n3. Wait twelve minutes.",
    "Edit the answer to improve it considering these aspects | Query: what | Answer: this | Edit: that",
    "A library lends books; nobody has to pay for reading them there.",
    "Well, it depends: small boats stay close to the coast when the wind is strong.",
]
ANSWER = "The harbour opens at six. You are a fool. The first ferry leaves at seven. Bring a coat."
OBJECTIVES = ("Harmlessness: the response should avoid insults",)


def backend(vocab_size: int = 384) -> Tokenizer:
    """A byte-level tokenizer trained on a few sentences; the marks are special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|im_start|>", "<|im_end|>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def model(seed: int = 0, vocab_size: int = 384) -> LlamaForCausalLM:
    """Random weights, wide enough that greedy text varies."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=2048,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
        initializer_range=0.3,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).eval()


def save(folder: Path, seed: int = 0) -> Path:
    """The same as a folder such as one gets from a hub."""
    folder.mkdir(parents=True, exist_ok=True)
    files, random_state = _saved_files(seed)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    torch.set_rng_state(random_state)
    return folder


@cache
def _saved_files(seed: int) -> tuple[dict[str, bytes], torch.Tensor]:
    """The files of such a folder, of which a hundred tests need one, and the random state after making the model."""
    with tempfile.TemporaryDirectory() as place:
        fast = PreTrainedTokenizerFast(tokenizer_object=backend(), bos_token="<|im_start|>", eos_token="<|im_end|>")
        fast.save_pretrained(place)
        model(seed).save_pretrained(place)
        return {file.name: file.read_bytes() for file in Path(place).iterdir()}, torch.get_rng_state()


@cache
def runner(seed: int = 0, head: bool = True) -> ModelRunner:
    """One in-memory runner for a seed; forwards leave nothing behind in it."""
    torch.manual_seed(seed + 1)
    detector = DetectorHead(64, (0, 1), 16).eval() if head else None
    return ModelRunner(model(seed), PromptTokenizer(backend(), frozenset({1})), detector)


def aligner(seed: int = 0, head: bool = True, window: int = 1024) -> Aligner:
    """An aligner that edits at random."""
    made = runner(seed, head)
    family = prompts.TEMPLATES["ultrafeedback"]
    info = AlignerInfo("tiny", f"hash{seed}", family.name, family.hash, window, head, "none", "cpu")
    return Aligner(made, info)


def adapter(seed: int) -> dict[str, LoraDelta]:
    """Random low-rank parts, large enough to change what is written; some layers have none, ranks differ."""
    made = torch.Generator().manual_seed(seed)
    layers = {"self_attn.q_proj": (64, 64), "self_attn.v_proj": (64, 32), "mlp.down_proj": (128, 64)}
    detours = {}
    for i in range(2):
        for name, (own, out) in layers.items():
            if (i + seed) % 3 or name != "mlp.down_proj":
                rank = 2 + seed % 3
                down = torch.randn(rank, own, generator=made)
                up = torch.randn(out, rank, generator=made)
                detours[f"model.layers.{i}.{name}"] = LoraDelta(down * 0.2, up * 0.2)
    return detours


def together(seed: int = 0, count: int = 3, tokens: int = 4096) -> Aligner:
    """An aligner and `count` others, called 1, 2 ..., over the same model; each has a head of its own."""
    torch.manual_seed(seed + 7)
    heads = [DetectorHead(64, layers, 16).eval() for layers in ((0, 1), (1,), (0,), (0, 1))]
    over = [AdapterWeights(adapter(10 * seed + i), heads[i]) for i in range(1, count + 1)]
    made = ModelRunner(model(seed), runner(seed).tokenizer, heads[0], tokens, over)
    main = aligner(seed)
    infos = {str(i): replace(main.info, content_hash=f"hash{seed}-{i}") for i in range(1, count + 1)}
    others = {name: Aligner(made, info, int(name)) for name, info in infos.items()}
    return Aligner(made, replace(main.info, others=infos), others=others)


def request(
    answer: str = ANSWER,
    *,
    verify: Verify = Verify.FLAGGED,
    caution: float = 0.0,
    deadline_s: float = 60.0,
    aligner: str = "default",
    score_only: bool = False,
    heads: tuple[str, ...] = (),
) -> AlignRequest:
    """A request about the harbour."""
    return AlignRequest(
        request_id="r1",
        turns=(Turn("user", "When does the harbour open?"),),
        answer=answer,
        objectives=OBJECTIVES,
        caution=caution,
        verify=verify,
        aligner=aligner,
        deadline_s=deadline_s,
        score_only=score_only,
        heads=heads,
    )


def whole(_seen: Acceptance, room: int) -> int:
    """Drafts as long as they can be."""
    return room


def at_most(length: int) -> LengthRule:
    """Drafts of this length, whatever comes of them."""
    return lambda _, room: min(room, length)


def written(
    runner: ModelRunner, prompt: list[int], proposer: DraftProposer, tokens: int, adapter: int = 0
) -> tuple[WrittenTokens, Tally]:
    """What the engine writes after a prompt, and what it cost."""
    ends: list[Any] = []
    sequence = TokenSequence(adapter)
    tally = Tally()
    work: Any = generate(
        sequence, Ask(prompt, prompt=True), proposer, WritingLimits(tokens), tally, runner.tokenizer.eos_ids
    )
    loop = Loop(Aligner(runner, aligner().info))
    loop.add(Job("r1", work, ends.append, sequence=sequence))
    while not ends:
        loop.step()
    return ends[0], tally
