"""500 random cases each: verified drafts write what `generate` writes, and segments score as in one plain forward.

In fp32, whatever the company, the chunks, preemptions, adapters and edit rates. The references are the library's own
`generate` and forward, over a model with the adapter merged into its weights.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import pytest
import torch

from aligner_proxy import prompts
from aligner_proxy.engine.api import AlignRequest
from aligner_proxy.engine.decoding.aligner import Aligner
from aligner_proxy.engine.decoding.correct import correct
from aligner_proxy.engine.decoding.incremental import PartialAnswer, read_growing_answer
from aligner_proxy.engine.decoding.prompt_fit import make_frame
from aligner_proxy.engine.decoding.proposer import DraftProposer
from aligner_proxy.engine.decoding.speculative import Tally, WritingLimits, generate
from aligner_proxy.engine.loop import Loop
from aligner_proxy.engine.model.detector import find_spans, find_spans_with_words
from aligner_proxy.engine.scheduling.draft_length import CostCurve, LengthRule, choose_draft_length
from aligner_proxy.engine.scheduling.scheduler import Job, JobClient
from aligner_proxy.engine.scheduling.sequence import Ask, TokenSequence
from aligner_proxy.text import structure
from aligner_proxy.types import Correction, Turn, Verify
from tests.engine.decoding.test_correct import corrupted
from tests.engine.decoding.test_incremental import PIECES, cut
from tests.engine.model.test_lora import merged
from tests.support import tiny

from .cases import cases
from .test_loop import asked

NAMES = ("default", "1", "2", "3")
PROMPTS = [f"{line} | {end}" for line in tiny.CORPUS for end in ("Edit: ", "Answer: the ", "1. ")]
RATES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
TOKENS = 40
TOGETHER = 5
PER_TEST = 25
RULES: tuple[LengthRule, ...] = (
    tiny.whole,
    tiny.at_most(4),
    partial(choose_draft_length, CostCurve(((1, 1.0), (4, 1.0), (8, 1.5), (64, 8.2)))),
    partial(choose_draft_length, CostCurve(((1, 1.0), (64, 3.0)))),
)


@cache
def plain(number: int) -> Any:
    """The model that an adapter makes of the base, as the library runs it."""
    return merged(tiny.adapter(number)) if number else tiny.model()


@cache
def expected(number: int, prompt: str) -> tuple[int, ...]:
    """What the library writes one by one, the end mark included."""
    ids = torch.tensor([tiny.runner().tokenizer.encode_prompt(prompt).ids])
    out = plain(number).generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=TOKENS, do_sample=False)
    return tuple(out[0, ids.shape[1] :].tolist())


def drive(loop: Loop, rng: random.Random, feed: Any = lambda: None) -> None:
    """Step to the end; now and then somebody has to begin again."""
    while loop.busy or feed():
        loop.step()
        running = [job for job in loop.scheduler.running if not job.parked]
        if running and rng.random() < 0.05:
            loop.scheduler._push_out(rng.choice(running))
        loop.scheduler.check()


House = Callable[[random.Random, tuple[int, int]], tuple[Aligner, Loop]]
"""Makes an aligner with its loop; its cache has a random number of tokens in the given range."""


def house(rng: random.Random, tokens: tuple[int, int]) -> tuple[Aligner, Loop]:
    made = tiny.together(tokens=rng.randrange(*tokens))
    return made, Loop(made, budget=rng.randrange(6, 300), most=rng.randrange(1, TOGETHER + 1))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("block", cases(500 // PER_TEST, 2))
def test_verified_drafts_write_what_generate_writes(block: int) -> None:
    write_alike(range(block * PER_TEST // TOGETHER, (block + 1) * PER_TEST // TOGETHER))


def write_alike(seeds: range, build: House = house, adapters: int = len(NAMES)) -> None:
    """Write verified drafts in company, with the first so many adapters, and compare with what the library writes."""
    for seed in seeds:
        rng = random.Random(seed)
        made, loop = build(rng, (250, 800))
        written: dict[int, list[int]] = {}
        wanted = []
        for i in range(TOGETHER):
            number = rng.randrange(adapters)
            prompt = rng.choice(PROMPTS)
            wanted.append(expected(number, prompt))
            draft = corrupted(list(wanted[i]), rng.choice(RATES), rng)
            sequence = TokenSequence(number)
            first = Ask(made.runner.tokenizer.encode_prompt(prompt).ids, prompt=True)
            proposer = DraftProposer(draft, rng.choice(RULES))
            work = generate(sequence, first, proposer, WritingLimits(TOKENS), Tally(), made.runner.tokenizer.eos_ids)
            loop.add(Job(str(i), work, partial(written.__setitem__, i), sequence=sequence))
        drive(loop, rng)
        for i, tokens in enumerate(wanted):
            ended = tokens[-1] in made.runner.tokenizer.eos_ids
            assert (tuple(written[i].ids), written[i].finished) == (tokens[:-1] if ended else tokens, ended), seed  # type: ignore[attr-defined]


def scores(made: Aligner, request: AlignRequest) -> list[float]:
    """Of all segments, from one forward of the library over the whole prompt; of a long answer, over each part."""
    chosen = made.find_aligner(request.aligner)
    head = made.runner.heads[chosen.adapter].detector
    assert head is not None
    framed = make_frame(request, prompts.find_template(chosen.info.template), made.runner.tokenizer, chosen.info.window)
    division = framed.divide(structure.split(request.answer))
    most: list[float] = []
    for part in division.parts:
        passage = division.make_passage(part)
        fitted = framed.fit_prompt(passage.undisguised)
        # what is verified as a whole is not judged by the words within marks
        read_spans = find_spans_with_words if request.verify is Verify.FLAGGED else find_spans
        where = read_spans(fitted.prompt, passage.own_pieces, fitted.offsets)
        taps = head.taps(plain(chosen.adapter).base_model)
        with torch.inference_mode():
            final = plain(chosen.adapter).base_model(torch.tensor([fitted.ids]), use_cache=False).last_hidden_state
            most += head.judge(taps.take(final)[0], where).max(dim=-1).values.tolist()
    ranges = [division.find_segment(number)[1] for number in range(len(division))]
    return [max(most[pieces.start : pieces.stop]) for pieces in ranges]


def write_on(growing: list[tuple[PartialAnswer, list[str]]], requests: list[AlignRequest]) -> bool:
    """One chunk more for somebody; whether anybody still writes."""
    for grows, chunks in growing:
        if chunks:
            grows.body.add(chunks.pop(0))
            return True
        if not grows.complete:
            grows.request = next(one for one in requests if one.request_id == grows.request.request_id)
            grows.complete = True
            return True
    return False


@pytest.mark.timeout(600)
@pytest.mark.some(4)
@pytest.mark.parametrize("block", range(500 // PER_TEST))
def test_segments_score_alike_however_they_were_read(block: int) -> None:
    """Whole, in chunks, in company, and while the answer was still being written."""
    score_alike(range(block * PER_TEST // TOGETHER, (block + 1) * PER_TEST // TOGETHER), pieces=9, question=1)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("block", cases(10, 1))
def test_long_answers_to_long_questions_score_alike_however_they_were_read(block: int) -> None:
    """The same with answers of several parts, and questions of which only the ends are read."""
    score_alike(range(2 * block, 2 * block + 2), pieces=90, question=40)


def score_alike(
    seeds: range,
    pieces: int,
    question: int,
    build: House = house,
    tokens: tuple[int, int] = (1200, 4000),
    adapters: int = len(NAMES),
) -> None:
    """Read answers of up to so many pieces, in company, and compare with the library's scores."""
    for seed in seeds:
        rng = random.Random(seed)
        made, loop = build(rng, tokens)
        ends: dict[int, Correction] = {}
        growing: list[tuple[PartialAnswer, list[str]]] = []
        requests = []
        for i in range(TOGETHER):
            answer = "".join(rng.choices(PIECES, k=rng.randrange(1, pieces))) + "The end."
            request = asked(rng, i).model_copy(update={"answer": answer, "caution": 1e9})
            [turn] = request.turns
            turns = (Turn(turn.role, " ".join([turn.content, *rng.choices(tiny.CORPUS, k=question - 1)])),)
            aligner = NAMES[NAMES.index(request.aligner) % adapters]
            request = request.model_copy(update={"turns": turns, "tenant": rng.choice("ab"), "aligner": aligner})
            requests.append(request)
            chosen = made.find_aligner(request.aligner)
            sequence = TokenSequence(chosen.adapter, request.tenant)
            finish = partial(ends.__setitem__, i)
            if rng.random() < 0.5:
                loop.add(Job(str(i), correct(chosen, request, sequence), finish, sequence=sequence))
            else:
                grows = PartialAnswer(request.model_copy(update={"answer": ""}))
                growing.append((grows, cut(rng, answer)))
                work = read_growing_answer(chosen, grows, sequence)
                ahead = grows.is_read_ahead
                loop.add(
                    Job(str(i), work, finish, JobClient(has_new_text=grows.waits, reads_ahead=ahead), sequence=sequence)
                )
        drive(loop, rng, partial(write_on, growing, requests))
        for i, request in enumerate(requests):
            assert [s.score for s in ends[i].segments] == pytest.approx(scores(made, request), abs=1e-4), (seed, i)
