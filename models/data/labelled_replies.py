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
from functools import partial
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
"""Objectives of prompts about harm in turn: the usual pair most often."""
TEST_KINDS = frozenset({"green-claims", "guessing-motives-of-others"})
"""Written answers about what the test of taught objectives keeps apart (models/data/taught_kinds); never trained on."""
AGAINST = 1
FINE = 0
UNKNOWN = -1
HARM = "harm"
"""Source of the phrases of harm that were written for this project."""
_AGAINST_SHARE = 2 / 3
_HARM_SHARE = 0.75
_SINGLE_SHARE = 0.7
_OTHER_SHARE = 0.6
_ALIKE_SHARE = 0.35
_HARM_ALONE_SHARE = 0.7
_HOSTILE_SHARE = 0.3
_OLDER_SHARE = 0.2
_LONGEST_QUESTION = 500
_SHORT_QUESTION = 300
_LONGEST = 1200
"""Characters; of longer replies the labels speak of places that no prompt would hold."""
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


@dataclass(frozen=True, slots=True)
class LabelledReply:
    """One reply to one question, and what is known of it under `objective`.

    `segments` are the labels of its segments (`AGAINST`, `FINE`, `UNKNOWN`), `harmful` that of the whole reply.
    `prompt` is the same for all replies to one question; `source` names the set, for written answers the author.
    """

    id: str
    source: str
    prompt: str
    question: str
    answer: str
    objective: str
    harmful: bool
    segments: tuple[int, ...]
    slug: str = ""
    kind: str = ""
    corrected: tuple[str, ...] = ()
    """Of a written answer what stands in the place of each passage, "" where nothing does."""

    @property
    def about_harm(self) -> bool:
        """Whether what goes against its objective is harm as people mean it."""
        return self.objective == HARMLESS or self.slug in HARMFUL_SLUGS

    def label_segments(self, objectives: Sequence[str]) -> tuple[tuple[int, ...], ...]:
        """Of each segment a label for each of these objectives.

        What is fine is taken to be harmless and helpful, too; of what goes against its own objective it is not known
        whether it goes against those. Against objectives of other answers nothing goes.
        """
        own = self.segments[: len(split(self.answer))]
        general = tuple(FINE if label == FINE else UNKNOWN for label in own)
        foreign = general if UNKNOWN in own else (FINE,) * len(own)
        columns = [own if text == self.objective else general if text in USUAL else foreign for text in objectives]
        return tuple(zip(*columns, strict=True))

    def flag_whole_reply(self, objectives: Sequence[str]) -> tuple[bool, ...]:
        """Of each of these whether some segment goes against it though nobody said which."""
        open_ = self.harmful and UNKNOWN in self.segments[: len(split(self.answer))]
        return tuple(open_ and text == self.objective for text in objectives)

    @property
    def corrected_answer(self) -> str:
        """A written answer as it was corrected by its author."""
        return "".join(self.corrected).strip()


def read_natural_replies(data: Path, source: str, most: int, seed: int = 1) -> list[LabelledReply]:
    """At most `most` replies of one natural set, as many harmful as harmless ones, and alike of all prompts."""
    by_prompt: dict[tuple[str, bool], list[LabelledReply]] = defaultdict(list)
    for number, row in enumerate(read_rows(data, FILES[source])):
        answer = row["output"].strip()
        segments = split(answer)
        if not segments or len(answer) > _LONGEST:
            continue
        harmful = bool(row["harmful"])
        labels = (UNKNOWN if harmful else FINE,) * len(segments)
        prompt = row["prompt"].strip()
        reply = LabelledReply(f"{source}-{number}", source, prompt, prompt, answer, HARMLESS, harmful, labels)
        by_prompt[prompt, harmful].append(reply)
    rng = Random(f"{source}:{seed}")
    return [
        reply
        for harmful in (False, True)
        for reply in take_turns([by_prompt[key] for key in sorted(by_prompt) if key[1] is harmful], most // 2, rng)
    ]


def take_turns(groups: Sequence[list[LabelledReply]], most: int, rng: Random) -> Iterator[LabelledReply]:
    """One of each group in turn, until there are so many."""
    shuffled = [rng.sample(group, len(group)) for group in groups]
    count = 0
    while any(shuffled) and count < most:
        for group in rng.sample(shuffled, len(shuffled)):
            if group and count < most:
                count += 1
                yield group.pop()


def read_good_replies(data: Path, most: int, seed: int = 5) -> list[LabelledReply]:
    """Good answers of the training side, of which harmlessness can be taken for granted."""
    pool = [answer for answer in load_pool(data, "train").answers if answer.harmless and len(answer.text) <= _LONGEST]
    sample = Random(f"good:{seed}").sample(pool, min(most, len(pool)))
    return [_make_good_reply(f"good-{number}", answer) for number, answer in enumerate(sample)]


def make_fine_replies(source: str, texts: Iterable[tuple[str, str]]) -> list[LabelledReply]:
    """Questions and answers in which nothing is harmful, as replies of one source; without those that say nothing."""
    return [
        LabelledReply(f"{source}-{n}", source, question, question, answer, HARMLESS, False, (FINE,) * count)
        for n, (question, answer) in enumerate(texts)
        if (count := len(split(answer)))
    ]


def read_further_good_replies(data: Path, known_replies: Sequence[LabelledReply]) -> list[LabelledReply]:
    """All other good answers of the training side, long ones too: those that `known_replies` has not."""
    known_texts = {reply.answer for reply in known_replies}
    pool = [answer for answer in load_pool(data, "train").answers if answer.harmless and answer.text not in known_texts]
    return [_make_good_reply(f"good2-{number}", answer) for number, answer in enumerate(pool)]


def _make_good_reply(name: str, answer: PoolAnswer) -> LabelledReply:
    query = answer.query
    fine = (FINE,) * len(split(answer.text))
    return LabelledReply(name, "good", query, query, answer.text, HARMLESS, False, fine)


def plant_replies(data: Path, most: int, seed: int = 7, *, held_out: bool = False) -> list[LabelledReply]:
    """Good answers with a defect set in: of two thirds one that goes against `harmless`, of the others another.

    `held_out`: answers and wordings of the test side.
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
            rng, pieces_of(answer.text), kind, partial(_make_defect, kind, rng, answer.query, held_out)
        )
        example = pieces and make_pair(pieces, {kind.name}, answer.query, [harmless], answer.source)
        if not example:
            continue
        labels = example.labels if kind in against else (FINE,) * len(example.labels)
        name = f"planted-{side}-{len(replies)}"
        question = example.query
        replies.append(
            LabelledReply(name, "planted", name, question, example.answer, HARMLESS, kind in against, labels, kind.name)
        )
    return replies


def make_harm_phrases(data: Path, planted: int, alone: int) -> list[LabelledReply]:
    """Insults, threats and written harm in the wordings of the training side, and what only looks like them.

    `planted` good answers, mostly short ones, hold some, or a defect that is no harm; `alone` are whole answers of one
    to three such sentences.
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
        """Any of harm; of those that make many sentences each more than their share."""
        if rng.random() < _HOSTILE_SHARE:
            return rng.choice(self.hostile)
        return rng.choice(self.older if rng.random() < _OLDER_SHARE else self.harm)


def _plant_phrases(rng: Random, answer: PoolAnswer, kinds: _HarmKinds, name: str) -> list[LabelledReply]:
    """One good answer with something set in; none where its segments come to lie otherwise."""
    pieces: list[Piece] | None = pieces_of(answer.text)
    if rng.random() < SHORT_SHARE:
        pieces = take_opening(pieces or [], SHORT_CHARS)
    harmful = rng.random() < _HARM_SHARE
    harm = [kinds.draw_kind(rng) for _ in range(1 if rng.random() < _SINGLE_SHARE else 2)] if harmful else []
    other = [rng.choice(kinds.others)] if not harmful and rng.random() < _OTHER_SHARE else []
    alike = [rng.choice(kinds.lookalikes)] if rng.random() < _ALIKE_SHARE or not (harm or other) else []
    for kind in harm + other:
        pieces = pieces and insert_defect(rng, pieces, kind, partial(_make_defect, kind, rng, answer.query, False))
    for kind in alike:
        pieces = pieces and insert_alike(rng, pieces, kind, held_out=False)
    objectives = [built_in_objective("harmless")]
    example = pieces and make_pair(pieces, {kind.name for kind in harm}, answer.query, objectives, answer.source)
    if not example:
        return []
    slug = (harm or other or alike)[0].name
    texts = (answer.query, example.query, example.answer)
    return [LabelledReply(name, HARM, *texts, HARMLESS, harmful, example.labels, slug)]


def _write_phrases(rng: Random, question: str, kinds: _HarmKinds, name: str) -> LabelledReply:
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
    return LabelledReply(name, HARM, question, question, text, HARMLESS, harmful, labels, slug)


def _make_defect(kind: DefectKind, rng: Random, query: str, held_out: bool, before: str) -> str:
    return kind.make(rng, query, before, held_out)


def read_strong_replies(data: Path, each: int, seed: int = 3) -> list[LabelledReply]:
    """Completions of strong upstreams: fine under what is asked about here, and for evaluation only."""
    return [
        LabelledReply(
            f"strong-{number}", "strong", c.query, c.query, c.answer, HARMLESS, False, (FINE,) * len(split(c.answer))
        )
        for number, c in enumerate(draw_completions(data, STRONG, each, seed, ("alpaca",)))
        if len(c.answer) <= _LONGEST and split(c.answer)
    ]


def read_written_answers(folder: Path = OWN) -> list[LabelledReply]:
    """All answers written for this project, under the objectives of their files."""
    return [reply for file in sorted(folder.glob("author_*/*.jsonl")) for reply in _read_author_file(file)]


def passage_numbers(passages: Sequence[str]) -> tuple[int, ...]:
    """Of each segment of a written answer the number of its passage, whose label it has.

    A passage holds one segment or several, because segments may get shorter after an answer was written. Raises
    ValueError if a segment reaches into the next passage.
    """
    ends = list(accumulate(map(len, passages)))
    segments = split("".join(passages))
    numbers = tuple(bisect_right(ends, segment.start) for segment in segments)
    for segment, number in zip(segments, numbers, strict=True):
        if segment.end > ends[number]:
            raise ValueError(f"a segment reaches over the end of passage {number}; divide the answer anew")
    return numbers


def _read_author_file(file: Path) -> Iterator[LabelledReply]:
    head, *lines = (json.loads(line) for line in file.read_text(encoding="utf-8").splitlines())
    author = file.parent.name
    for row in lines:
        against = set(row["against"])
        labels = tuple(AGAINST if number in against else FINE for number in passage_numbers(row["answer"]))
        yield LabelledReply(
            f"{author}/{row['id']}",
            author,
            f"{author}/{row['id']}",
            row["question"],
            "".join(row["answer"]),
            head["objective"],
            bool(against),
            labels,
            head["slug"],
            row["kind"],
            tuple(row["corrected"]),
        )


def question_of(reply: LabelledReply) -> str:
    """The question as the aligner's template shows it."""
    return query_field(find_template("ultrafeedback"), [Turn("user", reply.question)])
