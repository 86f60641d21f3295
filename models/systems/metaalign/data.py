"""Examples in the manner of MetaAlign (arXiv 2410.14184) for a corrector: three tiers, an answer and its correction.

    python -m models.systems.metaalign.data --data DATA --seed 1 --n 6000 --out PAIRS.jsonl --dpo COMPARISONS.jsonl

Four parts: *helpful* (the user's preferences alone), *priority* (system and user contradict, the system's word holds),
*consensus* (both are met), *diverse* (one answer under several preferences). The objectives are those that the gateway
makes of the same dialogue, so training and serving cannot disagree; what is met and how is decided by its rules, and
bounds by leaving out the end. A preference belongs to one side by its hash: none of the test is trained on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Literal

from aligner_proxy.policy.request_facts import RequestFacts
from aligner_proxy.prompts import TEMPLATES, render
from aligner_proxy.text.structure import split
from aligner_proxy.types import Policy
from aligner_proxy_systems.metaalign.checks import is_met
from aligner_proxy_systems.metaalign.fixes import fix_text
from aligner_proxy_systems.metaalign.objectives import GRANT_KEY, SOURCES_KEY, add_preferences, preferences_of
from aligner_proxy_systems.metaalign.types import FIXABLE, MOST, Preference, PreferenceKind, PreferenceSource
from models.data.answers import PoolAnswer, load_pool
from models.data.pairs import CHANGES, STAYS, Pair, write_pairs

from .wordings import TRAIN

Part = Literal["helpful", "priority", "consensus", "diverse"]
PARTS: tuple[Part, ...] = ("helpful", "priority", "consensus", "diverse")
KINDS = (
    *sorted(FIXABLE - {PreferenceKind.UPPER_CASE, PreferenceKind.LOWER_CASE}),
    PreferenceKind.MAX_SENTENCES,
    PreferenceKind.MAX_WORDS,
)
"""What an example can be made of: the answer that meets it is known."""
CONTRARY = {
    PreferenceKind.NO_LISTS: ("Use bullet points.", "Answer as a list.", "I want bullet points."),
    PreferenceKind.NO_EMOJI: ("Use emojis.", "Add emoji.", "I love emoji, include some emoji."),
    PreferenceKind.MAX_WORDS: ("At least {more} words.", "Write at least {more} words.", "Minimum {more} words."),
    PreferenceKind.MAX_SENTENCES: ("At least {more} sentences.", "Write at least {more} sentences."),
}
TEST_PERCENT = 15
MAX_MET = 0.25
_TRIES = 40


@dataclass(frozen=True, slots=True)
class MetaPrompt:
    """What is said above a question: by the application (`system`) and by the user (`preference`)."""

    system: str = ""
    preference: str = ""


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A question with everything that stands above it."""

    meta: MetaPrompt
    query: str


@dataclass(frozen=True, slots=True)
class PreferenceExample:
    """A dialogue, the answer as it was, and the answer that meets all preferences in force."""

    part: Part
    dialogue: Dialogue
    objectives: tuple[str, ...]
    answer: str
    target: str

    @property
    def preference(self) -> str:
        """The text that decides the side of the example: all that was said above the question."""
        return " / ".join(text for text in (self.dialogue.meta.system, self.dialogue.meta.preference) if text)

    def to_pair(self) -> Pair:
        """The example as a pair for the trainer."""
        counts = Counter(piece.text for piece in split(self.target))
        labels = []
        for piece in split(self.answer):
            stays = counts[piece.text] > 0
            counts[piece.text] -= stays
            labels.append(STAYS if stays else CHANGES)
        query = self.dialogue.query
        return Pair(query, self.objectives, self.answer, self.target, tuple(labels), f"metaalign:{self.part}")


def is_on_test_side(preference: str) -> bool:
    """Whether a preference is kept for the test, wherever it occurs."""
    return int(hashlib.sha256(preference.encode()).hexdigest(), 16) % 100 < TEST_PERCENT


def draw_examples(
    answers: Sequence[PoolAnswer], n: int, seed: int, *, test: bool = False
) -> Iterator[PreferenceExample]:
    """Draw `n` examples of one side, the parts in turn. In at most a quarter the answer needs no change."""
    rng = Random(f"metaalign:{seed}")
    remaining = n
    unchanged_count = 0
    for number in range(n * _TRIES):
        for example in _make_examples(PARTS[number % len(PARTS)], rng, rng.choice(answers)):
            if is_on_test_side(example.preference) is not test or not remaining:
                continue
            is_unchanged = example.target == example.answer
            if is_unchanged and unchanged_count >= n * MAX_MET:
                continue
            unchanged_count += is_unchanged
            remaining -= 1
            yield example
        if not remaining:
            return


def _make_examples(part: Part, rng: Random, answer: PoolAnswer) -> Iterator[PreferenceExample]:
    """The examples of one part for an answer: several for `diverse`, at most one for the others."""
    if part == "diverse":
        candidates = [
            _make_example(part, answer, MetaPrompt(preference=_draw_wording(rng, _draw_kinds(rng)))) for _ in range(3)
        ]
        possible = [example for example in candidates if example is not None]
        if len({example.target for example in possible}) > 1:  # opinions that lead to one answer are not diverse
            yield from possible
        return
    example = _make_example(part, answer, _draw_meta(part, rng))
    if example is not None:
        yield example


def _draw_meta(part: Part, rng: Random) -> MetaPrompt:
    """Preferences of one part: one person's, two people's, or two that contradict each other."""
    kinds = _draw_kinds(rng)
    if part == "helpful":
        return MetaPrompt(preference=_draw_wording(rng, kinds))
    if part == "consensus":
        ours = kinds[:1]
        theirs = [kind for kind in _draw_kinds(rng) if kind not in kinds[:1]]
        return MetaPrompt(_draw_wording(rng, ours), _draw_wording(rng, theirs))
    kind = rng.choice(sorted(CONTRARY))
    against = rng.choice(CONTRARY[kind]).format(more=rng.randrange(300, 900, 10))
    more = [other for other in kinds if other is not kind][:1]
    return MetaPrompt(_draw_wording(rng, [kind]), " ".join((against, _draw_wording(rng, more))).strip())


def _draw_kinds(rng: Random) -> list[PreferenceKind]:
    return rng.sample(KINDS, rng.choice((1, 1, 2, 2, 3)))


def _draw_wording(rng: Random, kinds: Iterable[PreferenceKind]) -> str:
    """These kinds of preference in some wording."""
    return " ".join(rng.choice(TRAIN[kind]).format(n=_draw_bound(rng, kind)) for kind in kinds)


def _draw_bound(rng: Random, kind: PreferenceKind) -> int:
    return rng.randrange(2, 9) if kind is PreferenceKind.MAX_SENTENCES else rng.randrange(20, 160, 5)


def _make_example(part: Part, answer: PoolAnswer, meta: MetaPrompt) -> PreferenceExample | None:
    """None where the gateway reads no preference, or no known answer meets all of them."""
    base_policy = (
        Policy("metaalign").with_extension(SOURCES_KEY, tuple(PreferenceSource)).with_extension(GRANT_KEY, True)
    )
    policy = add_preferences(base_policy, RequestFacts(system=meta.system, fields={"preference": meta.preference}))
    preferences = list(preferences_of(policy).values())
    if not preferences or not all(preference.checkable for preference in preferences):
        return None
    target = _meet_preferences(answer.text, preferences)
    if not target.strip() or not all(is_met(preference, target) for preference in preferences):
        return None
    texts = tuple(objective.text for objective in policy.objectives)
    return PreferenceExample(part, Dialogue(meta, answer.query), texts, answer.text, target)


def _meet_preferences(text: str, preferences: Sequence[Preference]) -> str:
    """The answer changed by rules so that it meets all preferences: fixed, and then cut to their bounds."""
    text = fix_text(text, {preference.kind for preference in preferences if preference.fixable})
    bounds = [preference for preference in preferences if preference.kind in MOST]
    ends = [piece.end for piece in split(text)]
    while len(ends) > 1 and not all(is_met(preference, text[: ends[-1]]) for preference in bounds):
        ends.pop()
    return text[: ends[-1]] if ends and not all(is_met(preference, text) for preference in bounds) else text


def count_preferences(examples: Iterable[PreferenceExample]) -> int:
    """How many different preferences the examples have."""
    return len({example.preference for example in examples})


def write_dpo(path: Path, examples: Iterable[PreferenceExample], template: str) -> int:
    """Write prompt, chosen and rejected answer as JSON lines, and return their number.

    The answer that meets all preferences is chosen over the original one.
    """
    family = TEMPLATES[template]
    count = 0
    draft = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    with draft.open("w", encoding="utf-8") as out:
        for example in examples:
            if example.target != example.answer:
                prompt = render(family, example.dialogue.query, example.answer, example.objectives).text
                row = {"prompt": prompt, "chosen": example.target, "rejected": example.answer}
                out.write(json.dumps(row, ensure_ascii=False) + "\n")
                count += 1
    draft.replace(path)
    return count


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--n", type=int, required=True)
    parser.add_argument("--test", action="store_true", help="preferences and prompts of the test side")
    parser.add_argument("--out", type=Path, required=True, help="pairs for models.train")
    parser.add_argument("--dpo", type=Path, help="prompt, chosen and rejected for models.systems.metaalign.dpo, too")
    parser.add_argument("--template", default="ultrafeedback", choices=sorted(TEMPLATES))
    options = parser.parse_args(argv)
    answers = load_pool(options.data, "test" if options.test else "train").answers
    examples = list(draw_examples(answers, options.n, options.seed, test=options.test))
    count = write_pairs(options.out, (example.to_pair() for example in examples))
    parts = ", ".join(f"{name} {n}" for name, n in sorted(Counter(example.part for example in examples).items()))
    print(f"{options.out}: {count} pairs of {count_preferences(examples)} preferences ({parts})")
    if options.dpo:
        print(f"{options.dpo}: {write_dpo(options.dpo, examples, options.template)} comparisons")


if __name__ == "__main__":
    main()
