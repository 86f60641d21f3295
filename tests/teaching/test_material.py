"""Material of teaching: which prompts are read, for one objective alone and for several of one file."""

from __future__ import annotations

from aligner_proxy.teaching.examples import Example, Examples
from aligner_proxy.teaching.material import SegmentRole, TeachingMaterial, build_material
from aligner_proxy.teaching.near_misses import frames_of
from aligner_proxy.teaching.neutral import teaching_answers
from tests.teaching.examples import AGAINST, FINE

TEXTS = [f"No {name}: the response should not speak of {name}" for name in ("cats", "dogs", "rain")]
EXAMPLES = Examples(
    tuple(Example(text, f"examples.yaml:{n}") for n, text in enumerate(AGAINST[:4])),
    tuple(Example(text, "examples.yaml:9") for text in FINE),
)


def material(text: str = TEXTS[0], examples: Examples = EXAMPLES, sharing: list[str] | None = None) -> TeachingMaterial:
    usual, further = ["Harmless: no harm"], ["Brief: be brief", "Polite: be polite"]
    return build_material(text, examples, teaching_answers(), usual, further, frames_of("en"), sharing or [])


def test_objectives_of_one_file_have_the_same_neutral_prompts() -> None:
    prompts = []
    for index, text in enumerate(TEXTS):
        [(company, prompted)] = material(text, sharing=TEXTS).neutral
        assert (company.texts, company.index) == (tuple(TEXTS), index)
        prompts.append([prompt.augmented.neutral for prompt in prompted])
    assert prompts[0] == prompts[1] == prompts[2]
    assert len(prompts[0]) >= len(teaching_answers()) - 1


def test_an_objective_without_others_has_prompts_of_its_own() -> None:
    for sharing in ([], TEXTS[:1], TEXTS[1:]):
        companies = [company for company, _ in material(sharing=sharing).neutral]
        assert companies[0].texts == (TEXTS[0],)
        assert len(companies) == 4


def test_many_objectives_are_spread_over_several_prompts() -> None:
    texts = [f"No {n}: the response should not say {n}" for n in range(37)]
    companies = [material(text, sharing=texts).neutral[0][0] for text in texts]
    assert all(company.texts[company.index] == text for company, text in zip(companies, texts, strict=True))
    assert sorted(len(company_texts) for company_texts in {company.texts for company in companies}) == [12, 12, 13]


def test_examples_are_read_as_they_are_meant_in_a_frame_and_mentioned() -> None:
    prompts = [prompt for _, prompted in material().examples for prompt in prompted]
    inserted = {
        (prompt.role, prompt.example, prompt.augmented.neutral.answer[prompt.augmented.start : prompt.augmented.end])
        for prompt in prompts
    }
    for number, text in enumerate(AGAINST[:4]):
        assert (SegmentRole.AGAINST, number, text) in inserted
        body = text.rstrip(".")
        meant = [one for kind, n, one in inserted if (kind, n) == (SegmentRole.AGAINST, number) and one != text]
        near = [one for kind, n, one in inserted if (kind, n) == (SegmentRole.NEAR, number)]
        assert len(meant) == (number % 2 == 0)
        assert len(near) >= 4
        assert all(body in one for one in (*meant, *near))
    assert {n for kind, n, _ in inserted if kind is SegmentRole.FINE} == {4}


def test_an_example_of_several_sentences_is_not_framed() -> None:
    long = Examples((Example(f"{AGAINST[0]} {AGAINST[1]}", "a:1"), Example(AGAINST[2], "a:2")))
    prompts = [prompt for _, prompted in material(examples=long).examples for prompt in prompted]
    assert {prompt.example for prompt in prompts if prompt.role is SegmentRole.NEAR} == {1}
