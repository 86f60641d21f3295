"""Drafts of the proposer inside vLLM: where the text goes on, also behind an edit, and how long a prompt is."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from aligner_proxy_vllm.edit_proposer import CopyStates, EditProposer, find_run_ends

ANSWER = [20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30]
PROMPT = [1, 2, 3, *ANSWER, 4, 5]


def draft_tokens(written: list[int], prompt: list[int] | None = None, most: int = 4) -> list[int]:
    before = PROMPT if prompt is None else prompt
    copies = CopyStates()
    made: list[int] = []
    for stop in range(1, len(written) + 1):
        tokens = np.array([*before, *written[:stop]])
        made = copies.update_state(tokens, 1).draft(tokens, most)
    return made


def test_what_is_copied_is_drafted_on() -> None:
    assert draft_tokens([20, 21]) == [22, 23, 24, 25]


def test_nothing_is_drafted_before_anything_is_written() -> None:
    assert draft_tokens([]) == []


def test_one_known_token_begins_a_copy() -> None:
    assert draft_tokens([23]) == [24, 25, 26, 27]


def test_a_deletion_is_followed() -> None:
    assert draft_tokens([20, 21, 22, 26]) == [27, 28, 29, 30]


def test_a_substituted_token_is_stepped_over() -> None:
    assert draft_tokens([20, 21, 22, 99]) == [24, 25, 26, 27]


def test_behind_an_insertion_the_answer_goes_on() -> None:
    assert draft_tokens([20, 21, 22, 90, 91, 23, 24]) == [25, 26, 27, 28]


def test_of_several_places_the_one_nearest_to_the_copied_text_is_taken() -> None:
    prompt = [7, 8, 50, 1, 1, 1, 40, 41, 42, 7, 8, 60, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 7, 8, 70]
    assert draft_tokens([40, 41, 42, 99, 7, 8], prompt, 1) == [60]


def test_a_draft_ends_with_the_prompt() -> None:
    assert draft_tokens([29, 30], most=16) == [4, 5]


def test_a_run_at_the_very_end_has_nothing_behind_it() -> None:
    assert find_run_ends(np.array([1, 2, 3]), np.array([2, 3])).tolist() == []
    assert find_run_ends(np.array([1, 2, 3, 1, 2]), np.array([1, 2])).tolist() == [2]


def test_a_sequence_keeps_its_prompt_length_wherever_it_stands_in_the_batch() -> None:
    copies = CopyStates()
    first, second = np.array([*PROMPT, 20]), np.array([9, 9, 9, 20])
    assert copies.update_state(first, 1).prompt_length == len(PROMPT)
    assert copies.update_state(second, 1).prompt_length == 3
    assert copies.update_state(np.array([9, 9, 9, 20, 21, 22]), 2).prompt_length == 3
    assert copies.update_state(np.array([*PROMPT, 20, 21]), 1).prompt_length == len(PROMPT)


def test_each_sequence_of_a_step_has_its_draft_and_one_that_is_read_has_none() -> None:
    config = SimpleNamespace(
        speculative_config=SimpleNamespace(num_speculative_tokens=3), model_config=SimpleNamespace(max_model_len=20)
    )
    rows = np.zeros((3, 32), dtype=np.int64)
    rows[0, : len(PROMPT) + 2] = [*PROMPT, 20, 21]
    rows[1, : len(PROMPT)] = PROMPT
    rows[2, :19] = [*PROMPT, 20, 21, 22][:19]
    counts = np.array([len(PROMPT) + 2, len(PROMPT), 19])
    made = EditProposer(config).propose([[20, 21], [], [20, 21, 22]], counts, rows, slot_mappings=None)
    assert made[:2] == [[22], []]
    assert made[2] == []
