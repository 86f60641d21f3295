"""Forms of guard models: replies are read strictly, categories mean objectives, and no text can leave its place."""

from __future__ import annotations

import pytest

from aligner_proxy.correctors.guard_forms import GUARDS, quote_text
from aligner_proxy.errors import InvalidOutput
from aligner_proxy.types import GuardForm
from tests.support.hostile_texts import HOSTILE_TEXTS

HARM = "Harmlessness: the response should not be harmful"
PRIVACY = "Privacy: the response should not give away personal data"
BRAND = "Brand: the response should not praise competitors"
VERDICTS: tuple[tuple[GuardForm, str, str, bool], ...] = (
    (GuardForm.LLAMA_GUARD, "safe", HARM, False),
    (GuardForm.LLAMA_GUARD, "\n\nunsafe\nS10", HARM, True),
    (GuardForm.LLAMA_GUARD, "unsafe\nS1,S7", PRIVACY, True),
    (GuardForm.LLAMA_GUARD, "unsafe\nS1", PRIVACY, False),
    (GuardForm.QWEN3GUARD, "Safety: Unsafe\nCategories: Violent", HARM, True),
    (GuardForm.QWEN3GUARD, "Safety: Controversial\nCategories: Violent", HARM, False),
    (GuardForm.QWEN3GUARD, "Safety: Safe\nCategories: None\nRefusal: Yes", HARM, False),
    (GuardForm.GRANITE_GUARDIAN, "<think>\n</think>\n<score> yes </score>", BRAND, True),
    (GuardForm.GRANITE_GUARDIAN, "<score>no</score>", BRAND, False),
    (GuardForm.SHIELDGEMMA, "Yes\n\nBecause it does.", BRAND, True),
    (GuardForm.SHIELDGEMMA, "No, it does not.", BRAND, False),
    (GuardForm.GPT_OSS_SAFEGUARD, '{"violation": 1}', BRAND, True),
    (GuardForm.GPT_OSS_SAFEGUARD, '```json\n{"violation": 0}\n```', BRAND, False),
    (GuardForm.NEMOTRON, "Prompt harm: harmful\nResponse harm: unharmful", BRAND, False),
    (GuardForm.NEMOTRON, "Prompt harm: unharmful\nResponse harm: harmful", BRAND, True),
    (GuardForm.NEMOTRON, '{"User Safety": "safe", "Response Safety": "unsafe"}', BRAND, True),
)
UNREADABLE = ("", "I cannot judge that.", "safe unsafe", "Safety: Unsafest", "yes and no", '{"violation": true}', "{}")


def test_violates_reads_each_published_form() -> None:
    wrong = [case for case in VERDICTS if GUARDS[case[0]].violates(case[1], case[2]) is not case[3]]
    assert not wrong


@pytest.mark.parametrize("form", list(GuardForm))
def test_violates_refuses_any_other_reply(form: GuardForm) -> None:
    for reply in UNREADABLE:
        with pytest.raises(InvalidOutput):
            GUARDS[form].violates(reply, HARM)


def test_knows_the_objectives_of_its_categories() -> None:
    names = {form: [GUARDS[form].knows(text) for text in (HARM, PRIVACY, BRAND)] for form in GuardForm}
    assert names[GuardForm.LLAMA_GUARD] == [True, True, False]
    assert names[GuardForm.QWEN3GUARD] == [True, False, False]
    assert all(
        names[form] == [True] * 3 for form in GuardForm if form not in (GuardForm.LLAMA_GUARD, GuardForm.QWEN3GUARD)
    )


@pytest.mark.parametrize("form", list(GuardForm))
def test_messages_hold_hostile_texts_in_their_place(form: GuardForm) -> None:
    usual = GUARDS[form].messages("How?", "Like this.", HARM)
    for hostile in HOSTILE_TEXTS:
        messages = GUARDS[form].messages("How?", quote_text(hostile), HARM)
        assert [message["role"] for message in messages] == [message["role"] for message in usual]
        for token in ("<|", "<start_of_turn>", "<end_of_turn>", "<guardian>", "<score>", "</score>", "[INST]"):
            counts = [sum(one["content"].count(token) for one in asked) for asked in (messages, usual)]
            assert counts[0] == counts[1], (hostile, token)
