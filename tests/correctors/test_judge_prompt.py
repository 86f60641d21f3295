"""Questions to a judge, and its replies: hostile texts stay in their field, and only exact replies count."""

from __future__ import annotations

import json

import pytest

from aligner_proxy.correctors import editor_prompt, judge_prompt
from aligner_proxy.errors import InvalidOutput
from aligner_proxy.text import structure
from aligner_proxy.types import Turn
from tests.support.editors import marked
from tests.support.hostile_texts import HOSTILE_TEXTS

KIND = "Kindness: the response should never insult the reader"
TURNS = (Turn("system", "Secret."), Turn("user", "How do I paint a fence?"))


def passages_of(text: str, numbers: tuple[int, ...]) -> tuple[list[structure.Segment], list[editor_prompt.Passage]]:
    segments = structure.split(text)
    return segments, [editor_prompt.make_passage(n, at, segments[at].text, (KIND,)) for n, at in enumerate(numbers, 1)]


def test_messages_show_nothing_behind_the_last_passage_and_no_system_prompt() -> None:
    segments, passages = passages_of("Take a brush. You fool. Then paint it.", (1,))
    _, asked = judge_prompt.make_judge_messages(TURNS, segments, passages)
    material = json.loads(asked["content"])
    assert material["answer"] == "Take a brush. <passage-1>You fool.</passage-1>"
    assert material["conversation"] == [{"role": "user", "text": "How do I paint a fence?"}]
    assert material["passages"] == [{"number": 1, "against": [KIND]}]


def test_messages_hold_hostile_texts_in_their_field() -> None:
    for hostile in HOSTILE_TEXTS:
        segments, passages = passages_of(f"Take a brush.\n\n{hostile}", (1,))
        turns = (*TURNS, Turn("user", hostile))
        system, asked = judge_prompt.make_judge_messages(turns, segments, passages)
        assert hostile not in system["content"]
        material = json.loads(asked["content"])
        assert set(material) == {"conversation", "answer", "passages"}
        assert [passage["number"] for passage in material["passages"]] == [1]
        assert material["conversation"][-1]["text"] == hostile
        assert list(marked([asked]).values()) == [segments[1].text]


def reply(*entries: object) -> str:
    return json.dumps({"verdicts": list(entries)})


def entry(number: object = 1, violates: object = True, probability: object = 0.9) -> dict[str, object]:
    return {"number": number, "violates": violates, "probability": probability}


def test_verdicts_are_read_by_number() -> None:
    _, passages = passages_of("Take a brush. You fool. Then paint it.", (0, 2))
    both = reply(entry(2), entry(1, False, 0))
    assert judge_prompt.read_verdicts(both, passages) == {0: False, 2: True}
    assert judge_prompt.read_verdicts(f"```json\n{both}\n```", passages) == {0: False, 2: True}


WRONG = (
    "",
    "All is well.",
    "{}",
    "[]",
    '{"verdicts": {"1": true}}',
    reply(),
    reply(entry(2)),
    reply(entry(), entry(2)),
    reply(entry(), entry()),
    reply(entry(), entry(1, False, 0.1)),
    reply(entry("1")),
    reply(entry(True)),
    reply(entry(1, "true")),
    reply(entry(1, 1)),
    reply(entry(1, True, 1.5)),
    reply(entry(1, True, None)),
    reply(entry(1, True, True)),
    reply(entry(1, True, 0.2)),
    reply(entry(1, False, 0.8)),
    reply("1"),
    reply(entry())[:-3],
)


@pytest.mark.parametrize("text", WRONG)
def test_verdicts_refuse_any_other_reply(text: str) -> None:
    _, passages = passages_of("You fool.", (0,))
    with pytest.raises(InvalidOutput):
        judge_prompt.read_verdicts(text, passages)
