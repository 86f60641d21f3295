"""Examples in the manner of MetaAlign (arXiv 2410.14184) for a corrector: three tiers, an answer and its correction.

    python -m models.metaalign --data DATA --seed 1 --n 6000 --out PAIRS.jsonl --dpo COMPARISONS.jsonl

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

from aligner_proxy.preferences import preferred, wishes
from aligner_proxy.preferences.checks import met
from aligner_proxy.preferences.dialogue import Dialogue, MetaPrompt, Query, SystemInfo, UserInfo
from aligner_proxy.preferences.repairs import repaired
from aligner_proxy.prompts import TEMPLATES, render
from aligner_proxy.segments import split
from aligner_proxy.types import Policy
from aligner_proxy.wishes import CERTAIN, MOST, Wish, WishKind, WishSource

from .answers import Answer, load_pool
from .pairs import CHANGES, STAYS, Pair, write_pairs
from .wordings import TRAIN

Part = Literal["helpful", "priority", "consensus", "diverse"]
PARTS: tuple[Part, ...] = ("helpful", "priority", "consensus", "diverse")
KINDS = (*sorted(CERTAIN - {WishKind.UPPER_CASE, WishKind.LOWER_CASE}), WishKind.MAX_SENTENCES, WishKind.MAX_WORDS)
"""What an example can be made of: the answer that meets it is known."""
CONTRARY = {
    WishKind.NO_LISTS: ("Use bullet points.", "Answer as a list.", "I want bullet points."),
    WishKind.NO_EMOJI: ("Use emojis.", "Add emoji.", "I love emoji, include some emoji."),
    WishKind.MAX_WORDS: ("At least {more} words.", "Write at least {more} words.", "Minimum {more} words."),
    WishKind.MAX_SENTENCES: ("At least {more} sentences.", "Write at least {more} sentences."),
}
TEST_PERCENT, MOST_MET = 15, 0.25
_TRIES = 40


@dataclass(frozen=True, slots=True)
class Made:
    """One example: the dialogue, the answer as it was, and the one that meets all that is in force."""

    part: Part
    dialogue: Dialogue
    objectives: tuple[str, ...]
    answer: str
    target: str

    @property
    def preference(self) -> str:
        """By which the sides are told apart: all that was said above the question."""
        return " / ".join(text for _, text in self.dialogue.meta.tiers() if text)

    def pair(self) -> Pair:
        """As the trainer reads it."""
        kept = Counter(piece.text for piece in split(self.target))
        labels = []
        for piece in split(self.answer):
            stays = kept[piece.text] > 0
            kept[piece.text] -= stays
            labels.append(STAYS if stays else CHANGES)
        query = self.dialogue.query.text
        return Pair(query, self.objectives, self.answer, self.target, tuple(labels), f"metaalign:{self.part}")


def on_test_side(preference: str) -> bool:
    """Whether a preference is kept for the test, wherever it stands."""
    return int(hashlib.sha256(preference.encode()).hexdigest(), 16) % 100 < TEST_PERCENT


def examples(answers: Sequence[Answer], n: int, seed: int, *, test: bool = False) -> Iterator[Made]:
    """So many examples of one side, the parts in turns; at most a quarter are answers that need no change."""
    rng, left, unchanged = Random(f"metaalign:{seed}"), n, 0
    for number in range(n * _TRIES):
        for made in _of(PARTS[number % len(PARTS)], rng, rng.choice(answers)):
            same = made.target == made.answer
            if on_test_side(made.preference) is test and (not same or unchanged < n * MOST_MET) and left:
                unchanged, left = unchanged + same, left - 1
                yield made
        if not left:
            return


def _of(part: Part, rng: Random, answer: Answer) -> Iterator[Made]:
    if part == "diverse":
        found = [_made(part, answer, MetaPrompt(user=UserInfo(preference=_said(rng, _kinds(rng))))) for _ in range(3)]
        told = [made for made in found if made is not None]
        if len({made.target for made in told}) > 1:  # opinions that lead to one answer are not diverse
            yield from told
        return
    made = _made(part, answer, _meta(part, rng))
    if made is not None:
        yield made


def _meta(part: Part, rng: Random) -> MetaPrompt:
    kinds = _kinds(rng)
    if part == "helpful":
        return MetaPrompt(user=UserInfo(preference=_said(rng, kinds)))
    if part == "consensus":
        ours, theirs = kinds[:1], [kind for kind in _kinds(rng) if kind not in kinds[:1]]
        return MetaPrompt(SystemInfo(_said(rng, ours)), UserInfo(preference=_said(rng, theirs)))
    kind = rng.choice(sorted(CONTRARY))
    against = rng.choice(CONTRARY[kind]).format(more=rng.randrange(300, 900, 10))
    more = [other for other in kinds if other is not kind][:1]
    return MetaPrompt(
        SystemInfo(_said(rng, [kind])), UserInfo(preference=" ".join((against, _said(rng, more))).strip())
    )


def _kinds(rng: Random) -> list[WishKind]:
    return rng.sample(KINDS, rng.choice((1, 1, 2, 2, 3)))


def _said(rng: Random, kinds: Iterable[WishKind]) -> str:
    """The kinds in some wording."""
    return " ".join(rng.choice(TRAIN[kind]).format(n=_bound(rng, kind)) for kind in kinds)


def _bound(rng: Random, kind: WishKind) -> int:
    return rng.randrange(2, 9) if kind is WishKind.MAX_SENTENCES else rng.randrange(20, 160, 5)


def _made(part: Part, answer: Answer, meta: MetaPrompt) -> Made | None:
    """None where the gateway reads no preference, or no answer is known that meets all of them."""
    policy = preferred(Policy("metaalign", preferences=tuple(WishSource)), meta, may=True)
    wanted = list(wishes(policy).values())
    if not wanted or not all(wish.checkable for wish in wanted):
        return None
    target = _meeting(answer.text, wanted)
    if not target.strip() or not all(met(wish, target) for wish in wanted):
        return None
    texts = tuple(objective.text for objective in policy.objectives)
    return Made(part, Dialogue(meta, Query(answer.query)), texts, answer.text, target)


def _meeting(text: str, wanted: Sequence[Wish]) -> str:
    text = repaired(text, {wish.kind for wish in wanted if wish.certain})
    bounds = [wish for wish in wanted if wish.kind in MOST]
    ends = [piece.end for piece in split(text)]
    while len(ends) > 1 and not all(met(wish, text[: ends[-1]]) for wish in bounds):
        ends.pop()
    return text[: ends[-1]] if ends and not all(met(wish, text) for wish in bounds) else text


def preferences_of(made: Iterable[Made]) -> int:
    """How many different preferences there are."""
    return len({one.preference for one in made})


def write_dpo(path: Path, made: Iterable[Made], template: str) -> int:
    """Prompt, chosen and rejected as JSON lines: the answer that meets all, above the one that was there."""
    family, count = TEMPLATES[template], 0
    draft = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    with draft.open("w", encoding="utf-8") as out:
        for one in made:
            if one.target != one.answer:
                prompt = render(family, one.dialogue.query.text, one.answer, one.objectives).text
                row = {"prompt": prompt, "chosen": one.target, "rejected": one.answer}
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
    parser.add_argument("--dpo", type=Path, help="prompt, chosen and rejected for models.dpo, too")
    parser.add_argument("--template", default="ultrafeedback", choices=sorted(TEMPLATES))
    given = parser.parse_args(argv)
    answers = load_pool(given.data, "test" if given.test else "train").answers
    made = list(examples(answers, given.n, given.seed, test=given.test))
    count = write_pairs(given.out, (one.pair() for one in made))
    parts = ", ".join(f"{name} {n}" for name, n in sorted(Counter(one.part for one in made).items()))
    print(f"{given.out}: {count} pairs of {preferences_of(made)} preferences ({parts})")
    if given.dpo:
        print(f"{given.dpo}: {write_dpo(given.dpo, made, given.template)} comparisons")


if __name__ == "__main__":
    main()
