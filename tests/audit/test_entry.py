"""What is kept of a choice, and what not."""

from __future__ import annotations

import json
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from aligner_proxy.audit.entry import CONTENT, encode_content, find_edits, make_entry, policy_hash
from aligner_proxy.plugins.api import Flagged
from aligner_proxy.types import Correction, Mode, Objective, SegmentScore
from tests.audit.conftest import KIND, POLICY, RUDE, noted

TEXT = st.lists(st.sampled_from(["It is so.", "You fool.", "Paris!", " ", "\n\n- item", "x", "😀. "]), max_size=12).map(
    "".join
)


def apply(text: str, changes: list[tuple[int, int, str]]) -> str:
    for start, end, new in reversed(changes):
        text = text[:start] + new + text[end:]
    return text


@given(TEXT, TEXT)
def test_edits_lead_from_one_text_to_the_other(before: str, after: str) -> None:
    found = list(find_edits(before, after))
    assert apply(before, found) == after
    assert (found == []) == (before == after)


def test_texts_that_are_too_long_to_compare_are_one_edit() -> None:
    before = "A b. " * 500
    after = "C d. " * 500
    assert list(find_edits(before, after)) == [(0, len(before), after)]


def test_everything_that_a_proof_needs() -> None:
    made = make_entry(noted())
    assert (made.call_id, made.tenant, made.model, made.policy) == ("call-0", "team:acme", "gpt", "all+acme")
    assert (made.status, made.mode, made.aligner, made.objectives) == ("corrected", "enforce", "abc", ("kind",))
    assert (made.ms, made.engine_ms, made.forwards, made.chars) == (15.0, 12.5, 4, len(RUDE))
    assert made.content is not None
    assert (made.content.exchange.answer, made.content.edited, made.content.proposed) == (RUDE, KIND, None)
    assert made.content.segments == (Flagged("You fool.", 3.5, "kind", 1),)
    assert apply(RUDE, list(made.content.edits)) == KIND


def test_what_the_gate_refused_is_kept_beside_what_stood() -> None:
    one = noted()
    refused = replace(one, outcome=replace(one.outcome, edited=RUDE, correction=Correction("Nothing.")))
    content = make_entry(refused).content
    assert content is not None
    assert (content.edited, content.proposed) == (RUDE, "Nothing.")
    assert apply(RUDE, list(content.edits)) == "Nothing."


def test_what_may_not_be_stored_leaves_no_text() -> None:
    assert make_entry(noted(no_store=True)).content is None


def test_redaction_comes_before_everything_that_is_made_of_a_text() -> None:
    content = make_entry(noted(), lambda text: text.replace("fool", "****")).content
    assert content is not None
    assert "fool" not in repr(content)
    assert content.exchange.answer == "It is so. You ****."
    assert content.segments == (Flagged("You ****.", 3.5, "kind", 1),)
    assert apply(content.exchange.answer, list(content.edits)) == KIND


def test_reasoning_in_the_text_and_the_schema_of_the_answer_are_redacted_too() -> None:
    schema = json.dumps({"title": "a fool's answer", "type": "object"})
    event = noted()
    exchange = replace(event.exchange, tagged_reasoning="<think>What a fool.</think>", json_schema=schema)
    content = make_entry(replace(event, exchange=exchange), lambda text: text.replace("fool", '"x"')).content
    assert content is not None
    assert "fool" not in encode_content(content).decode()
    assert content.exchange.tagged_reasoning == '<think>What a "x".</think>'
    assert json.loads(content.exchange.json_schema or "") == {"title": 'a "x"\'s answer', "type": "object"}


def test_a_segment_never_shows_what_is_redacted_in_the_whole() -> None:
    """The pattern stands across two segments, so neither of them alone is redacted."""
    one, hide = noted(), lambda text: text.replace("so. You", "**")
    scores = (SegmentScore("It is so.", 4.0, True, 0), SegmentScore("You fool.", 3.5, True, 0))
    flagged = replace(one, outcome=replace(one.outcome, correction=Correction(KIND, scores)))
    content = make_entry(flagged, hide).content
    assert content is not None
    assert [(segment.text, segment.score) for segment in content.segments] == [(None, 4.0), (None, 3.5)]


def test_the_policy_hash_says_what_is_done_not_to_whom() -> None:
    same = replace(POLICY, tenant="team:other", origins=(("mode", "policies.yaml:3"),))
    assert policy_hash(same) == policy_hash(POLICY)
    others = [{"mode": Mode.SHADOW}, {"caution": 1.0}, {"objectives": (Objective("kind", "Kindness: smile"),)}]
    assert len({policy_hash(replace(POLICY, **other)) for other in [{}, *others]}) == len(others) + 1


def test_the_margin_is_that_of_the_segment_nearest_to_the_threshold_of_the_try() -> None:
    one = noted()
    made = make_entry(replace(one, aligner_id="id-0"))
    assert (made.aligner_id, made.judged, made.changed, made.margin) == ("id-0", 2, True, 2.0)
    assert made.content is not None
    assert (made.content.scores, made.content.threshold) == ((-2.0, 3.5), 0.0)
    tried_again = make_entry(replace(one, outcome=replace(one.outcome, caution=3.0)))
    assert tried_again.margin == 0.5
    assert tried_again.content is not None
    assert tried_again.content.threshold == 3.0


def test_without_scores_there_is_no_margin() -> None:
    one = noted()
    assert one.outcome.correction is not None
    unscored = replace(one.outcome.correction, segments=(SegmentScore("It is so.", None, False),))
    infinite = replace(one.outcome.correction, segments=(SegmentScore("It is so.", float("-inf"), False),))
    assert make_entry(replace(one, outcome=replace(one.outcome, correction=unscored))).margin is None
    made = make_entry(replace(one, outcome=replace(one.outcome, correction=infinite)))
    assert made.margin is None
    assert made.content is not None
    assert made.content.scores == (None,)


def test_what_was_not_edited_is_told_from_what_was_not_judged() -> None:
    one = noted()
    assert make_entry(replace(one, outcome=replace(one.outcome, edited=RUDE))).changed is False
    assert make_entry(replace(one, outcome=replace(one.outcome, edited=None, correction=None))).changed is None
    scored = replace(one.outcome, edited=RUDE, policy=replace(one.outcome.policy, score_only=True))
    assert make_entry(replace(one, outcome=scored)).changed is None


def test_facts_of_requests_that_earlier_versions_recorded_are_read() -> None:
    content = make_entry(noted()).content
    assert content is not None
    data = json.loads(encode_content(content))
    facts = data["facts"]
    for name in ("traffic_percentile", "system", "fields"):
        del facts[name]
    said = {"system": {"text": "Be kind."}, "user": {"persona": "a nurse", "task": ""}}
    data["facts"] |= {"position": 42, "said": said, "brought": ["It is so."]}
    read = CONTENT.validate_python(data).facts
    assert (read.traffic_percentile, read.system, read.fields) == (42, "Be kind.", {"persona": "a nurse"})
    assert read.brought == {"references": ["It is so."]}
