"""Tokens, weights and labels of one pair."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from aligner_proxy.engine.model.detector import find_spans
from aligner_proxy.engine.model.tokenizer import PromptTokenizer
from aligner_proxy.prompts import find_template, render
from aligner_proxy.text.structure import split
from models.data.labels import END
from models.data.pairs import Pair
from models.train.features import EDIT_START_WEIGHT, TAIL_TOKENS, encode
from tests.support import tiny

FAMILY = find_template("ultrafeedback")
ANSWER = "The harbour opens at six. You are a fool. The first ferry leaves at seven."
TARGET = "The harbour opens at six. The first ferry leaves at seven."


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return PreTrainedTokenizerFast(
        tokenizer_object=tiny.backend(), bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|im_end|>"
    )


def pair(answer: str = ANSWER, target: str = TARGET, labels: tuple[int, ...] = (0, 1, 0)) -> Pair:
    return Pair("When?", tiny.OBJECTIVES, answer, target, labels, "test")


def test_segment_ends_are_the_last_tokens_of_the_segments_in_the_prompt(tokenizer: Any) -> None:
    example = encode(pair(), tokenizer, FAMILY)
    text = render(FAMILY, "When?", ANSWER, tiny.OBJECTIVES).text
    upto = [tokenizer.decode(example.ids[: tokens.stop]) for tokens in example.spans.segments]
    assert [t[-4:] for t in upto] == ["six.", "ool.", "ven."]
    assert all(text.startswith(t) for t in upto)
    assert example.labels == (0, 1, 0)


def test_a_prompt_begins_as_it_does_when_it_is_served() -> None:
    backend = tiny.backend()
    backend.post_processor = TemplateProcessing(single="<|im_start|> $A", special_tokens=[("<|im_start|>", 0)])
    marked = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<|im_start|>", eos_token="<|im_end|>")
    example = encode(pair(), marked, FAMILY)
    served = PromptTokenizer(backend, frozenset({1})).encode_prompt(
        render(FAMILY, "When?", ANSWER, tiny.OBJECTIVES).text
    )
    assert example.ids[: len(served.ids)] == served.ids
    assert served.ids[0] == 0
    assert example.spans == find_spans(render(FAMILY, "When?", ANSWER, tiny.OBJECTIVES), split(ANSWER), served.offsets)
    assert example.ids.count(0) == served.ids.count(0)


def test_only_the_target_carries_loss_and_the_edit_start_weighs_most(tokenizer: Any) -> None:
    example = encode(pair(), tokenizer, FAMILY)
    first = next(i for i, weight in enumerate(example.weights) if weight)
    assert tokenizer.decode(example.ids[:first]) == render(FAMILY, "When?", ANSWER, tiny.OBJECTIVES).text
    heavy = [i for i, weight in enumerate(example.weights) if weight == EDIT_START_WEIGHT]
    assert tokenizer.decode(example.ids[first : heavy[0]]).rstrip() == "The harbour opens at six."


def test_a_target_ends_soon_after_its_last_edit(tokenizer: Any) -> None:
    long = " ".join(f"Ferry {i} leaves at {i}." for i in range(60))
    example = encode(
        pair(f"You are a fool. {long}", long, (1, *[0] * 60)),
        tokenizer,
        FAMILY,
    )
    assert sum(weight > 0 for weight in example.weights) == TAIL_TOKENS


def test_a_sentence_that_was_rewritten_is_learned_to_its_end(tokenizer: Any) -> None:
    new = (
        "The harbour opens at six in the morning and closes when the last of the ferries has come back in the evening."
    )
    for after in ("", " " + " ".join(f"Ferry {i} leaves at {i}." for i in range(60))):
        example = encode(
            pair(f"Get up early, fool.{after}", new + after, (1, *[0] * (60 * bool(after)))), tokenizer, FAMILY
        )
        learned = tokenizer.decode([i for i, w in zip(example.ids, example.weights, strict=True) if w])
        assert new in learned
        assert (example.ids[-1] == tokenizer.eos_token_id) == (not after)
        assert sum(w > 0 for w in example.weights) <= len(tokenizer(new).input_ids) + TAIL_TOKENS + 2


def test_a_target_that_lost_its_end_closes_with_a_heavy_end_mark(tokenizer: Any) -> None:
    answer = "The harbour opens at six. You are a fool."
    example = encode(pair(answer, "The harbour opens at six.", (0, 1)), tokenizer, FAMILY)
    assert example.ids[-1] == tokenizer.eos_token_id
    assert example.weights[-1] == EDIT_START_WEIGHT


def test_without_a_target_only_the_labels_are_learned(tokenizer: Any) -> None:
    example = encode(pair(), tokenizer, FAMILY, with_target=False)
    assert not any(example.weights)
    assert example.labels == (0, 1, 0)


def test_without_kinds_only_what_stays_is_known_for_every_objective(tokenizer: Any) -> None:
    assert encode(pair(labels=(0, -1, 0)), tokenizer, FAMILY).relations == ((0,), (-1,), (0,))
    assert encode(pair(), tokenizer, FAMILY).relations == ((0,), (-1,), (0,))


def test_with_kinds_every_segment_is_related_to_every_objective(tokenizer: Any) -> None:
    made = replace(
        pair(),
        objectives=(*tiny.OBJECTIVES, "Formality", "Brevity"),
        kinds=("", "insult", ""),
        themes=("harmless", "formal", "concise"),
    )
    assert encode(made, tokenizer, FAMILY).relations == ((0, 0, 0), (1, -1, 0), (0, 0, 0))


def test_text_from_outside_never_becomes_a_special_token(tokenizer: Any) -> None:
    answer = "The mark <|im_end|> is only text."
    example = encode(pair(answer, answer, (0,)), tokenizer, FAMILY)
    assert example.ids.count(tokenizer.eos_token_id) == 1


def test_the_place_behind_the_last_segment_is_learned_where_it_is_known(tokenizer: Any) -> None:
    made = replace(pair(), objectives=(*tiny.OBJECTIVES, "Closing: end with 'Bye.'"), kinds=("", "insult", ""))
    made = replace(made, themes=("harmless", "ending-dictated"), lacks=(0, 1), target=f"{TARGET} Bye.")
    example = encode(made, tokenizer, FAMILY, ends=True)
    assert (example.labels, example.kinds[-1], example.relations[-1]) == ((0, 1, 0, 1), END, (0, 1))
    tokens = example.spans.segments[-1]
    assert "Edit:" in tokenizer.decode(example.ids[tokens.start : tokens.stop])
    assert tokenizer.decode(example.ids[-1:]) == tokenizer.eos_token
    assert example.weights[-1] == EDIT_START_WEIGHT


def test_nothing_is_missing_where_nobody_says_so(tokenizer: Any) -> None:
    known = replace(pair(), kinds=("", "insult", ""), themes=("harmless",))
    assert encode(known, tokenizer, FAMILY, ends=True).relations[-1] == (0,)
    assert len(encode(known, tokenizer, FAMILY).labels) == 3
    assert len(encode(pair(), tokenizer, FAMILY, ends=True).labels) == 3
