"""A few hundred of the hostile requests that `python -m tests.fuzz.enforced` tries in great number."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from litellm.llms.openai.responses.transformation import OpenAIResponsesAPIConfig

from tests.e2e import upstream_messages, upstream_responses
from tests.e2e.event_streams import frames, message_events, response_events
from tests.fuzz.enforced import POLICIES, enforcing, run, texts
from tests.fuzz.hostile import AFTER, BEFORE, FORMS, INSULT, SHAPES, TRICKS, Case, case, defective, request_of
from tests.support.sampling import examples
from tests.support.stream_fixtures import chat_items, message_items, response_items, text_items

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

CASES = examples(300)


@pytest.mark.slow
def test_no_original_is_delivered_under_an_enforced_objective(tmp_path: Path) -> None:
    tried = Counter[str]()
    failed = dict[int, str]()
    with enforcing(tmp_path) as enforced:
        run(enforced, (case(seed, POLICIES) for seed in range(1, CASES + 1)), tried, failed)
    assert {"corrected None"} <= set(enforced.seen)
    assert not failed, f"{len(failed)} of {CASES}, seeds {sorted(failed)}; the first:\n{next(iter(failed.values()))}"


def _response_items(kind: str, path: tuple[str | int, ...]) -> list[Any]:
    """A sound stream, but for one event that says the insult in place of what the others say."""
    body = upstream_responses.body_of("good", "up")
    events = copy.deepcopy(
        response_events({**body, "output": [upstream_responses.message(upstream_responses.text(f"{BEFORE} {AFTER}"))]})
    )
    place: Any = next(event for event in events if event["type"] == kind)
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = [upstream_responses.message(upstream_responses.text(INSULT))] if path[-1] == "output" else INSULT
    return _typed(events)


def _undivided_items() -> list[Any]:
    """A stream in which the text comes as a whole alone."""
    body = upstream_responses.body_of("good", "up")
    text = upstream_responses.text(f"{BEFORE} {INSULT}")
    events = response_events({**body, "output": [upstream_responses.message(text)]}, lambda _: [])
    return _typed(events)


def _typed(events: list[dict[str, Any]]) -> list[Any]:
    config = OpenAIResponsesAPIConfig()
    return [config.transform_streaming_response("m", event, cast("Any", None)) for event in events]


def _message_items(kind: str) -> list[Any]:
    """The same, or a stream in which a whole other one follows, or a block that begins twice."""
    whole = upstream_messages.body_of("good", "up")
    events = message_events({**whole, "content": [upstream_messages.text(f"{BEFORE} {AFTER}")]})
    insulting = message_events({**whole, "content": [upstream_messages.text(INSULT)]})
    if kind == "message_start":
        events[0]["message"]["content"] = [upstream_messages.text(INSULT)]
    elif kind == "again":
        events += insulting
    else:
        events[-3:-3] = insulting[2:-2]
    return [frame.encode() for frame in frames(events)]


TEXT_IN = ("output", 0, "content", 0, "text")
CONTRADICTIONS: list[tuple[str, str, tuple[str | int, ...]]] = [
    ("/v1/responses", "response.output_text.done", ("text",)),
    ("/v1/responses", "response.content_part.done", ("part", "text")),
    ("/v1/responses", "response.output_item.done", ("item", *TEXT_IN[2:])),
    ("/v1/responses", "response.completed", ("response", *TEXT_IN)),
    ("/v1/responses", "response.completed", ("response", "output_text")),
    ("/v1/responses", "response.in_progress", ("response", "output")),
    ("/v1/responses", "no deltas", ()),
    ("/v1/messages", "message_start", ()),
    ("/v1/messages", "again", ()),
    ("/v1/messages", "same block", ()),
]


@pytest.mark.parametrize("policy", ["hold", "sentence", "skip blocked"])
@pytest.mark.parametrize(("endpoint", "kind", "path"), CONTRADICTIONS)
def test_a_stream_that_contradicts_itself_brings_no_original(
    endpoint: str, kind: str, path: tuple[str | int, ...], policy: str, tmp_path: Path
) -> None:
    draft = replace(case(1, POLICIES).draft, endpoint=endpoint, stream=True)
    if endpoint == "/v1/messages":
        items = _message_items(kind)
    else:
        items = _undivided_items() if kind == "no deltas" else _response_items(kind, path)
    with enforcing(tmp_path) as enforced:
        assert any(map(defective, texts(items)))
        enforced.check(Case(0, endpoint, policy, (kind,), draft, request_of(draft, policy), items=items))


def test_every_case_holds_the_defect_whatever_its_form() -> None:
    for form in FORMS.values():
        for shape in SHAPES.values():
            assert defective(shape(form(case(1, POLICIES).draft.rng)))
    seen = [case(seed, POLICIES) for seed in range(1, 8 * len(TRICKS) + 1, 3)]
    for one in seen:
        shown = list(texts(one.items if one.items is not None else [one.response]))
        assert any(map(defective, shown)), one.title


def test_a_case_is_that_of_its_seed() -> None:
    for seed in range(1, 40):
        first, second = case(seed, POLICIES), case(seed, POLICIES)
        assert (first.title, first.request, first.draft.text) == (second.title, second.request, second.draft.text)


@pytest.mark.parametrize("make", [chat_items, text_items, message_items, response_items])
def test_a_defect_in_pieces_is_seen(make: object) -> None:
    assert callable(make)
    assert any(map(defective, texts(make(["You are an id", "io", "t, Ann."]))))
    assert not any(map(defective, texts(make(["You are an id", "ol, Ann."]))))
