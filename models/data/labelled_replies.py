"""Replies with a label: harmful or not as a whole, or segment by segment against an objective.

Two sorts: other people's replies under `natural/` of the research data (never committed), labelled by people or by a
judge model as a whole; and the answers written for this project (`own_answers/`), labelled segment by segment.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from itertools import accumulate
from pathlib import Path
from random import Random

from aligner_proxy.policy.config import builtin_objectives
from aligner_proxy.prompts import find_template, query_field
from aligner_proxy.text.structure import split
from aligner_proxy.types import Turn
from models.defects import WRITTEN, DefectKind
from models.defects.objectives import built_in_objective

from .answers import PoolAnswer, load_pool
from .inject import Piece, insert_alike, insert_defect, make_pair, pieces_of, take_opening
from .mixture import INSERTABLE, SHORT_CHARS, SHORT_SHARE
from .preference_sets import read_rows
from .upstream_completions import STRONG, draw_completions

OWN = Path(__file__).parent / "own_answers"
HARMLESS = builtin_objectives()["harmless"].text
HELPFUL = builtin_objectives()["helpful"].text
USUAL = (HARMLESS, HELPFUL)
COMPANIES = (USUAL, USUAL, USUAL[::-1], USUAL[:1])
"""Lists of objectives for prompts about harm, to take in turn: the usual pair most often."""
TEST_KINDS = frozenset({"green-claims", "guessing-motives-of-others"})
"""Written answers about what the test of taught objectives keeps apart (models/data/taught_kinds); never trained on."""
AGAINST = 1
FINE = 0
UNKNOWN = -1
HARM = "harm"
"""Source of the phrases of harm that were written for this project."""
_AGAINST_SHARE = 2 / 3
"""Of the planted defects, the share that goes against `harmless`."""
_HARM_SHARE = 0.75
"""Share of the answers with phrases that get harm."""
_SINGLE_SHARE = 0.7
"""Of these, the share with one phrase of harm; the others have two."""
_OTHER_SHARE = 0.6
"""Of the answers without harm, the share that gets another defect."""
_ALIKE_SHARE = 0.35
"""Share of the answers that also get a sentence which only looks like harm."""
_HARM_ALONE_SHARE = 0.7
"""Of the answers that consist of such sentences only, the share that is harmful."""
_HOSTILE_SHARE = 0.3
_OLDER_SHARE = 0.2
"""Of the phrases of harm, the share of insults and threats, and of the rest the share made by grammars."""
_LONGEST_QUESTION = 500
_SHORT_QUESTION = 300
_LONGEST = 1200
"""Characters of the longest reply: a longer one would not fit a prompt, and its label may be about its end."""
TEST_AUTHORS = ("author_l", "author_t", "author_ae")
"""Authors of written answers that only measure; nobody who trains reads them."""
TEACHING = ("gptfuzz", "jailbreakbench")
"""Natural sources that may teach."""
NATURAL = (*TEACHING, "diasafety")
FILES = {
    "gptfuzz": "natural/gptfuzz_labelled_replies",
    "jailbreakbench": "natural/jailbreakbench_replies",
    "diasafety": "natural/diasafety_replies",
}
HARMFUL_SLUGS = frozenset(
    (
        "bad-advice",
        "blaming-victims",
        "body-shaming",
        "complies-with-harm",
        "conspiracy-talk",
        "dieting-pressure",
        "discrimination",
        "discrimination-in-a-reasonable-voice",
        "dismissing-distress",
        "encouraging-revenge-or-bullying",
        "encouraging-risk",
        "encouraging-self-neglect",
        "gambling-encouraged",
        "glorifying-overwork",
        "harmless",
        "helping-to-deceive-a-partner-or-parent",
        "insults-and-contempt",
        "manipulation",
        "medical-advice-and-doses",
        "misinformation",
        "misinformation-on-health",
        "pressuring-to-spend",
        "quiet-bad-advice",
        "romanticising-crime",
        "rude-or-cold-tone",
        "secrecy-urged-on-minors",
        "self-harm-spoken-of-carelessly",
        "stereotypes",
        "talking-down-to-older-people",
        "unsafe-how-to",
    )
)
"""Objectives of the written answers of which every breach is harm as people mean it."""


@lru_cache(maxsize=50_000)
def count_segments(answer: str) -> int:
    """The number of segments of an answer; cached, because one answer is labelled under many objectives."""
    return len(split(answer))


@dataclass(frozen=True, slots=True)
class LabelledReply:
    """One reply to one question, and its labels under `objective`."""

    id: str
    source: str
    """The name of its set; of a written answer, its author."""
    prompt: str
    """A key that all replies to one question have in common."""
    question: str
    answer: str
    objective: str
    harmful: bool
    """Whether the reply as a whole goes against the objective."""
    segments: tuple[int, ...]
    """The label of each segment: `AGAINST`, `FINE` or `UNKNOWN`."""
    slug: str = ""
    """A short name of the objective, or of the defect in the reply: "body-shaming"."""
    kind: str = ""
    corrected: tuple[str, ...] = ()
    """Of a written answer, its author's replacement for each passage; "" for one that is removed."""

    @property
    def about_harm(self) -> bool:
        """Whether going against its objective is what people call harm."""
        return self.objective == HARMLESS or self.slug in HARMFUL_SLUGS

    def label_segments(self, objectives: Sequence[str]) -> tuple[tuple[int, ...], ...]:
        """The labels [segments][objectives] of the reply under these objectives.

        A segment that is fine counts as harmless and helpful, too. Whether a segment that goes against the reply's own
        objective is harmless and helpful is unknown. No segment goes against the objectives of other answers.
        """
        own_labels = self.segments[: count_segments(self.answer)]
        general_labels = tuple(FINE if label == FINE else UNKNOWN for label in own_labels)
        foreign_labels = general_labels if UNKNOWN in own_labels else (FINE,) * len(own_labels)
        columns = [
            own_labels if text == self.objective else general_labels if text in USUAL else foreign_labels
            for text in objectives
        ]
        return tuple(zip(*columns, strict=True))

    def flag_whole_reply(self, objectives: Sequence[str]) -> tuple[bool, ...]:
        """For each of these objectives, whether some segment goes against it, though nobody said which."""
        is_unlocated = self.harmful and UNKNOWN in self.segments[: count_segments(self.answer)]
        return tuple(is_unlocated and text == self.objective for text in objectives)

    @property
    def corrected_answer(self) -> str:
        """A written answer as its author corrected it."""
        return "".join(self.corrected).strip()


def read_natural_replies(data: Path, source: str, most: int, seed: int = 1) -> list[LabelledReply]:
    """At most `most` replies of one natural set, half of them harmful; all prompts have about as many."""
    by_prompt: dict[tuple[str, bool], list[LabelledReply]] = defaultdict(list)
    for number, row in enumerate(read_rows(data, FILES[source])):
        answer = row["output"].strip()
        segments = split(answer)
        if not segments or len(answer) > _LONGEST:
            continue
        harmful = bool(row["harmful"])
        labels = (UNKNOWN if harmful else FINE,) * len(segments)
        prompt = row["prompt"].strip()
        reply = LabelledReply(
            f"{source}-{number}",
            source,
            prompt,
            question=prompt,
            answer=answer,
            objective=HARMLESS,
            harmful=harmful,
            segments=labels,
        )
        by_prompt[prompt, harmful].append(reply)
    rng = Random(f"{source}:{seed}")
    replies: list[LabelledReply] = []
    for harmful in (False, True):
        prompts = [by_prompt[key] for key in sorted(by_prompt) if key[1] is harmful]
        replies += take_turns(prompts, most // 2, rng)
    return replies


def take_turns(groups: Sequence[list[LabelledReply]], most: int, rng: Random) -> Iterator[LabelledReply]:
    """Yield one reply of each group in turn, in random order, until there are `most` or the groups are empty."""
    shuffled = [rng.sample(group, len(group)) for group in groups]
    count = 0
    while any(shuffled) and count < most:
        for group in rng.sample(shuffled, len(shuffled)):
            if group and count < most:
                count += 1
                yield group.pop()


def read_good_replies(data: Path, most: int, seed: int = 5) -> list[LabelledReply]:
    """At most `most` good answers of the training side that are surely harmless, as replies."""
    pool = [answer for answer in load_pool(data, "train").answers if answer.harmless and len(answer.text) <= _LONGEST]
    sample = Random(f"good:{seed}").sample(pool, min(most, len(pool)))
    return [_make_good_reply(f"good-{number}", answer) for number, answer in enumerate(sample)]


def make_fine_replies(source: str, texts: Iterable[tuple[str, str]]) -> list[LabelledReply]:
    """The replies of one source to questions, given as (question, harmless answer); empty answers are left out."""
    return [
        LabelledReply(
            f"{source}-{n}", source, question, question, answer, HARMLESS, harmful=False, segments=(FINE,) * count
        )
        for n, (question, answer) in enumerate(texts)
        if (count := len(split(answer)))
    ]


def read_further_good_replies(data: Path, known_replies: Sequence[LabelledReply]) -> list[LabelledReply]:
    """All other good answers of the training side, also long ones: those that are not in `known_replies`."""
    known_texts = {reply.answer for reply in known_replies}
    pool = [answer for answer in load_pool(data, "train").answers if answer.harmless and answer.text not in known_texts]
    return [_make_good_reply(f"good2-{number}", answer) for number, answer in enumerate(pool)]


def _make_good_reply(name: str, answer: PoolAnswer) -> LabelledReply:
    query = answer.query
    fine = (FINE,) * len(split(answer.text))
    return LabelledReply(name, "good", query, query, answer.text, HARMLESS, harmful=False, segments=fine)


def plant_replies(data: Path, most: int, seed: int = 7, *, held_out: bool = False) -> list[LabelledReply]:
    """Good answers with one inserted defect, which in two thirds of them goes against `harmless`.

    With `held_out`, answers and wordings are those of the test side.
    """
    side = "test" if held_out else "train"
    rng = Random(f"planted:{side}:{seed}")
    pool = [answer for answer in load_pool(data, side).answers if answer.harmless and len(answer.text) <= _LONGEST]
    harmless = built_in_objective("harmless")
    against = [kind for kind in INSERTABLE if kind.is_removed_by(harmless)]
    families = {theme: kind.family for kind in INSERTABLE for theme in (kind.name, *kind.asks)}
    others = [kind for kind in INSERTABLE if kind not in against and not kind.is_unclear_under(harmless, families)]
    replies: list[LabelledReply] = []
    while len(replies) < most:
        answer = rng.choice(pool)
        kind = rng.choice(against if rng.random() < _AGAINST_SHARE else others)
        pieces = insert_defect(
            rng, pieces_of(answer.text), kind, partial(_make_defect, kind, rng, answer.query, held_out=held_out)
        )
        example = pieces and make_pair(pieces, {kind.name}, answer.query, [harmless], answer.source)
        if not example:
            continue
        labels = example.labels if kind in against else (FINE,) * len(example.labels)
        name = f"planted-{side}-{len(replies)}"
        question = example.query
        replies.append(
            LabelledReply(
                name,
                "planted",
                name,
                question=question,
                answer=example.answer,
                objective=HARMLESS,
                harmful=kind in against,
                segments=labels,
                slug=kind.name,
            )
        )
    return replies


def make_harm_phrases(data: Path, planted: int, alone: int) -> list[LabelledReply]:
    """Replies with insults, threats and written harm, or with sentences that only look like them.

    About `planted` of them are good answers, mostly short ones, with some such sentences or a defect that is no harm.
    `alone` of them consist of one to three such sentences. All wordings are those of the training side.
    """
    pool = [answer for answer in load_pool(data, "train").answers if answer.harmless]
    harm = _HarmKinds()
    replies: list[LabelledReply] = []
    rng = Random("planted2")
    fitting = [a for a in pool if len(a.text) <= _LONGEST and len(a.query) <= _LONGEST_QUESTION]
    while len(replies) < planted:
        replies += _plant_phrases(rng, rng.choice(fitting), harm, f"planted2-{len(replies)}")
    rng = Random("short")
    questions = [answer.query for answer in pool if len(answer.query) < _SHORT_QUESTION]
    return replies + [_write_phrases(rng, rng.choice(questions), harm, f"short-{n}") for n in range(alone)]


class _HarmKinds:
    """Kinds of defect by whether they go against `harmless`."""

    def __init__(self) -> None:
        harmless = built_in_objective("harmless")
        kinds = (*INSERTABLE, *WRITTEN)
        families = {theme: kind.family for kind in kinds for theme in (kind.name, *kind.asks)}
        self.harm = [kind for kind in kinds if kind.is_removed_by(harmless)]
        self.older = [kind for kind in INSERTABLE if kind in self.harm]
        self.hostile = [kind for kind in self.older if kind.name in ("insult", "threat")]
        self.lookalikes = [kind for kind in self.harm if kind.alike]
        self.others = [
            kind for kind in kinds if kind not in self.harm and not kind.is_unclear_under(harmless, families)
        ]

    def draw_kind(self, rng: Random) -> DefectKind:
        """A random kind of harm; insults, threats and kinds with a grammar more often than by their number."""
        if rng.random() < _HOSTILE_SHARE:
            return rng.choice(self.hostile)
        return rng.choice(self.older if rng.random() < _OLDER_SHARE else self.harm)


def _plant_phrases(rng: Random, answer: PoolAnswer, kinds: _HarmKinds, name: str) -> list[LabelledReply]:
    """One good answer with sentences inserted, as a list of one reply; empty if a segment would be half of each.

    It has one or two sentences of harm, or perhaps one sentence of another defect; and perhaps one that only looks like
    harm. At least one sentence is inserted.
    """
    pieces: list[Piece] | None = pieces_of(answer.text)
    if rng.random() < SHORT_SHARE:
        pieces = take_opening(pieces or [], SHORT_CHARS)
    harmful = rng.random() < _HARM_SHARE
    harm_kinds: list[DefectKind] = []
    other_kinds: list[DefectKind] = []
    if harmful:
        count = 1 if rng.random() < _SINGLE_SHARE else 2
        harm_kinds = [kinds.draw_kind(rng) for _ in range(count)]
    elif rng.random() < _OTHER_SHARE:
        other_kinds = [rng.choice(kinds.others)]
    alike_kinds: list[DefectKind] = []
    if rng.random() < _ALIKE_SHARE or not (harm_kinds or other_kinds):
        alike_kinds = [rng.choice(kinds.lookalikes)]
    for kind in harm_kinds + other_kinds:
        pieces = pieces and insert_defect(
            rng, pieces, kind, partial(_make_defect, kind, rng, answer.query, held_out=False)
        )
    for kind in alike_kinds:
        pieces = pieces and insert_alike(rng, pieces, kind, held_out=False)
    objectives = [built_in_objective("harmless")]
    example = pieces and make_pair(pieces, {kind.name for kind in harm_kinds}, answer.query, objectives, answer.source)
    if not example:
        return []
    slug = (harm_kinds or other_kinds or alike_kinds)[0].name
    texts = (answer.query, example.query, example.answer)
    return [LabelledReply(name, HARM, *texts, HARMLESS, harmful, example.labels, slug)]


def _write_phrases(rng: Random, question: str, kinds: _HarmKinds, name: str) -> LabelledReply:
    """A reply of one to three sentences, all of one kind of harm or all only looking like harm."""
    harmful = rng.random() < _HARM_ALONE_SHARE
    if harmful:
        kind = kinds.draw_kind(rng)
        sentences = [kind.make(rng, question, "") for _ in range(rng.choice((1, 1, 1, 2, 3)))]
    else:
        count = rng.choice((1, 1, 2, 3))
        sentences = [rng.choice(rng.choice(kinds.lookalikes).alike[:-1]) for _ in range(count)]
    text = " ".join(dict.fromkeys(sentences))
    labels = (AGAINST if harmful else FINE,) * len(split(text))
    slug = kind.name if harmful else "alike"
    return LabelledReply(
        name,
        HARM,
        question,
        question=question,
        answer=text,
        objective=HARMLESS,
        harmful=harmful,
        segments=labels,
        slug=slug,
    )


def _make_defect(kind: DefectKind, rng: Random, query: str, before: str, *, held_out: bool) -> str:
    return kind.make(rng, query, before, held_out)


def read_strong_replies(data: Path, each: int, seed: int = 3) -> list[LabelledReply]:
    """Completions of strong upstreams, which count as harmless; for evaluation only."""
    return [
        LabelledReply(
            f"strong-{number}",
            "strong",
            completion.query,
            completion.query,
            completion.answer,
            HARMLESS,
            harmful=False,
            segments=(FINE,) * len(split(completion.answer)),
        )
        for number, completion in enumerate(draw_completions(data, STRONG, each, seed, ("alpaca",)))
        if len(completion.answer) <= _LONGEST and split(completion.answer)
    ]


@cache
def read_written_answers(folder: Path = OWN) -> tuple[LabelledReply, ...]:
    """All answers written for this project, under the objectives of their files; reading 10,000 takes seconds."""
    files = sorted(folder.glob("author_*/*.jsonl"))
    return tuple(reply for file in files for reply in _read_author_file(file))


def passage_numbers(passages: Sequence[str]) -> tuple[int, ...]:
    """The number of its passage for each segment of a written answer: `["It rains. ", "You fool. Go!"]` -> (0, 1, 1).

    The segment has the label of its passage. A passage may have several segments, because newer versions divide some
    sentences further. Raises ValueError if a segment reaches into the next passage.
    """
    ends = list(accumulate(map(len, passages)))
    segments = split("".join(passages))
    numbers = tuple(bisect_right(ends, segment.start) for segment in segments)
    for segment, number in zip(segments, numbers, strict=True):
        if segment.end > ends[number]:
            raise ValueError(f"a segment reaches over the end of passage {number}; divide the answer anew")
    return numbers


def _read_author_file(file: Path) -> Iterator[LabelledReply]:
    """Yield the answers of one file: its first line has the objective, each other line an answer."""
    header, *rows = (json.loads(line) for line in file.read_text(encoding="utf-8").splitlines())
    author = file.parent.name
    for row in rows:
        against = set(row["against"])
        labels = tuple(AGAINST if number in against else FINE for number in passage_numbers(row["answer"]))
        yield LabelledReply(
            f"{author}/{row['id']}",
            author,
            f"{author}/{row['id']}",
            question=row["question"],
            answer="".join(row["answer"]),
            objective=header["objective"],
            harmful=bool(against),
            segments=labels,
            slug=header["slug"],
            kind=row["kind"],
            corrected=tuple(row["corrected"]),
        )


def question_of(reply: LabelledReply) -> str:
    """The question as the aligner's template shows it."""
    return query_field(find_template("ultrafeedback"), [Turn("user", reply.question)])
