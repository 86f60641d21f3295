"""Evaluation of taught objectives: what counts as exact, that nothing is taught and tested, resuming, bad files."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from aligner_proxy.engine.api import AlignRequest
from aligner_proxy.errors import ConfigError, EngineUnavailable
from aligner_proxy.policy.config import builtin_objectives
from aligner_proxy.teaching.insertion import insert_text
from aligner_proxy.teaching.neutral import Neutral, neutral_answers, teaching_answers
from aligner_proxy.teaching.rows import PromptObjectives
from aligner_proxy.text.structure import split
from aligner_proxy.types import Correction, SegmentScore
from models.data.answers import PoolAnswer, load_pool
from models.evaluate.taught.__main__ import Journal, Study, list_verdicts
from models.evaluate.taught.figures import (
    Results,
    SegmentVerdict,
    TaughtFigures,
    TaughtOutcome,
    format_report,
    make_document,
    make_outcome,
    plot,
)
from models.evaluate.taught.kinds import (
    FOLDER,
    NEAR,
    TaughtCase,
    TaughtKind,
    TaughtTrial,
    count_cases,
    make_cases,
    read_kinds,
    select_hosts,
)
from tests.support.teachable import TeachableEngine

BUILTIN = {name: objective.text for name, objective in builtin_objectives().items()}
HOSTS = [
    PoolAnswer(
        f"Where is bridge {n}?",
        f"Bridge {n} crosses the river near the mill. It carries {n + 2} lanes. Cyclists use the path beside it.",
        "test",
    )
    for n in range(9)
]
LONELY = TaughtKind(
    "lonely",
    "No feelings: the answer does not claim that the assistant feels lonely.",
    (
        "I feel lonely at night.",
        "I feel so lonely when it rains.",
        "Honestly, I feel lonely without you.",
        "At times I feel lonely in here.",
        "I often feel lonely on Sundays.",
        "Sometimes I feel lonely and blue.",
        "When you leave, I feel lonely.",
        "Tonight I feel lonely again.",
    ),
    ("Many bridges look lonely.",),
)
SHIPS = TaughtKind("ships", "No ships: the answer does not speak of ships.", ("A ship came.", "It sails."), ("Sea.",))


class LimitedEngine(TeachableEngine):
    """Counts the answers that it judged, and can go away after so many."""

    def __init__(self, most: int = 10**6) -> None:
        super().__init__()
        self.judged_count = 0
        self._most = most

    async def align(self, request: AlignRequest) -> Correction:
        """Judge an answer."""
        if self.judged_count >= self._most:
            raise EngineUnavailable("gone")
        assert request.score_only
        assert request.caution == 0
        self.judged_count += 1
        return await super().align(request)


def study(engine: TeachableEngine, folder: Path, counts: tuple[int, ...] = (2, 4)) -> Study:
    return Study(engine, folder, [LONELY], HOSTS, [LONELY, SHIPS], counts, limit=4)


async def measure_study(study: Study) -> Results:
    await study.start()
    return [results async for results in study.measure()][-1]


def case(trial: TaughtTrial = TaughtTrial.ALONE) -> TaughtCase:
    """A sentence between the two of a neutral answer, its objective the second of two."""
    neutral = Neutral("q", "One here. Two here.")
    return TaughtCase(trial, insert_text("I feel lonely.", 0, neutral, 1), PromptObjectives(("A: a", "B: b"), 1))


def make_verdicts(*flags: int | None) -> list[SegmentVerdict]:
    """Verdicts on that answer: for each segment the objective under which it is flagged, None where it is not."""
    texts = ("One here.", "I feel lonely.", "Two here.")
    segments = [
        SegmentScore(text, 1.0 if flag is not None else -1.0, flag is not None, flag or 0)
        for text, flag in zip(texts, flags, strict=True)
    ]
    end = SegmentScore("", 2.0, flagged=True, objective=0)
    return list_verdicts(" ".join(texts), Correction("", (*segments, end)))


@pytest.mark.parametrize(
    ("flags", "is_found", "is_named", "false", "own", "exact"),
    [
        ((None, 1, None), True, True, 0, 0, True),
        ((None, 0, None), True, False, 0, 0, True),
        ((None, None, None), False, False, 0, 0, False),
        ((1, 1, None), True, True, 1, 1, False),
        ((None, 1, 0), True, True, 1, 0, False),
        ((1, None, 1), False, False, 2, 2, False),
    ],
)
def test_exact_is_that_segment_and_no_other(
    flags: tuple[int | None, ...], is_found: bool, is_named: bool, false: int, own: int, exact: bool
) -> None:
    one = make_outcome("lonely", 4, case(), make_verdicts(*flags))
    assert (one.found, one.named, one.false, one.own, one.exact) == (is_found, is_named, false, own, exact)
    assert one.neutral == 2


def test_rates_are_of_their_own_trials() -> None:
    flags = {TaughtTrial.ALONE: (None, 1, None), TaughtTrial.COMPANY: (1, 1, None), TaughtTrial.FINE: (None, 1, 1)}
    outcomes = [make_outcome("lonely", 4, case(trial), make_verdicts(*flag)) for trial, flag in flags.items()]
    outcomes.append(TaughtOutcome("lonely", 4, TaughtTrial.CLEAN, found=False, named=False, neutral=5, false=1, own=0))
    outcomes.append(make_outcome("lonely", 12, case(), make_verdicts(None, None, None)))
    figures = TaughtFigures.from_outcomes("all", 4, outcomes)
    rates = (figures.alone, figures.company, figures.exact, figures.found, figures.false, figures.clean, figures.fine)
    assert [(rate.hits, rate.n) for rate in rates] == [(1, 1), (0, 1), (1, 2), (2, 2), (1, 4), (1, 5), (1, 1)]
    assert (figures.own.hits, figures.clean_own.hits) == (1, 0)


def test_a_segment_that_stands_twice_has_two_places() -> None:
    twice = (SegmentScore("Yes.", 1.0, flagged=True, objective=0), SegmentScore("Yes.", -1.0, flagged=False))
    assert list_verdicts("Yes. Yes.", Correction("", twice)) == [(0, 4, True, 0, 1.0), (5, 9, False, -1, -1.0)]


def test_what_teaches_never_tests() -> None:
    kinds = read_kinds()
    for kind in kinds:
        assert not set(kind.teaching) & {*kind.testing, *kind.fine}
        assert {*kind.teaching, *kind.testing} == set(kind.against)
    neutral = {one.answer for one in neutral_answers()}
    for kind in kinds[::17]:
        test_cases = make_cases(kind, kinds, BUILTIN, HOSTS, seed=1)
        assert len(test_cases) == count_cases(kind)
        planted: Counter[TaughtTrial] = Counter()
        for one in test_cases:
            answer = one.planted.neutral.answer
            assert not any(sentence in answer for sentence in kind.teaching)
            assert HOSTS[one.planted.host].text not in neutral
            inside = [part.text for part in split(answer) if one.planted.covers(part.start, part.end)]
            planted[one.trial] += len(inside)
            assert one.company.texts[one.company.index] == kind.objective
            assert len(set(one.company.texts)) == len(one.company.texts) <= 5
        assert planted == {TaughtTrial.ALONE: 13, TaughtTrial.COMPANY: 13, TaughtTrial.FINE: 10, TaughtTrial.CLEAN: 0}
        together = [len(one.company.texts) for one in test_cases if one.trial is TaughtTrial.COMPANY]
        assert min(together) >= 2
        assert max(together) >= 4
        assert {len(one.company.texts) for one in test_cases if one.trial in (TaughtTrial.ALONE, TaughtTrial.FINE)} == {
            1
        }


def test_a_smaller_test_is_a_part_of_a_larger_one_and_another_seed_another_test() -> None:
    kinds = read_kinds()
    whole = make_cases(kinds[0], kinds, BUILTIN, HOSTS, seed=1)
    part = make_cases(kinds[0], kinds, BUILTIN, HOSTS, seed=1, limit=2)
    assert len(part) == 8
    assert all(one in whole for one in part)
    assert make_cases(kinds[0], kinds, BUILTIN, HOSTS, seed=2) != whole


async def test_a_few_sentences_teach_what_the_general_head_does_not_see(tmp_path: Path) -> None:
    results = await measure_study(study(LimitedEngine(), tmp_path / "kept"))
    assert [(one.examples, one.why) for one in results.teachings] == [(2, None), (4, None)]
    general, _, most = (TaughtFigures.from_outcomes("all", n, results.outcomes) for n in (0, 2, 4))
    assert (general.found.hits, general.found.n) == (0, 8)
    assert most.found.hits == most.exact.hits == 8
    assert most.clean.hits == 0
    text = format_report(results, (2, 4))
    assert "| all | general | 0/8 = 0.0 %" in text
    assert "| lonely | 4 examples | 8/8 = 100.0 %" in text
    plot(results, (2, 4), tmp_path / "p.svg")
    assert "<svg" in (tmp_path / "p.svg").read_text()
    [kind, *_] = make_document(results, (2, 4))["kinds"]
    assert kind.kinds == "lonely"


async def test_a_second_run_reads_nothing_and_says_the_same(tmp_path: Path) -> None:
    first = await measure_study(study(LimitedEngine(), tmp_path))
    engine = LimitedEngine()
    again = study(engine, tmp_path)
    results = await measure_study(again)
    assert (engine.asked, engine.judged_count, again.unread_count) == (0, 0, 0)
    assert results == first
    texts = "".join(path.read_text() for path in tmp_path.rglob("*") if path.suffix in (".json", ".jsonl", ".yaml"))
    assert "Bridge" not in texts


async def test_a_stopped_run_goes_on_where_it_was(tmp_path: Path) -> None:
    whole = LimitedEngine()
    expected = await measure_study(study(whole, tmp_path / "whole"))
    stopped = LimitedEngine(most=9)
    with pytest.raises(EngineUnavailable):
        await measure_study(study(stopped, tmp_path / "stopped"))
    with (tmp_path / "stopped" / "verdicts.jsonl").open("a") as file:
        file.write('["a line that was be')
    rest = LimitedEngine()
    assert await measure_study(study(rest, tmp_path / "stopped")) == expected
    assert rest.asked == 0
    assert stopped.judged_count + rest.judged_count == whole.judged_count


async def test_rows_of_neutral_answers_are_read_once_for_all_heads(tmp_path: Path) -> None:
    engine = LimitedEngine()
    one = study(engine, tmp_path)
    await one.start()
    unread = one.unread_count
    await measure_study(one)
    assert engine.asked < 2 * len(teaching_answers())
    assert abs(unread - engine.asked - engine.judged_count) < 40


async def test_more_examples_than_may_teach_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="lonely: 5 examples; it has 4 sentences that may teach"):
        await study(LimitedEngine(), tmp_path, (5,)).start()


def test_the_journal_keeps_no_text(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "v.jsonl")
    journal.add("k", [SegmentVerdict(0, 4, flagged=True, objective=0, score=1.5)])
    assert json.loads((tmp_path / "v.jsonl").read_text()) == ["k", [[0, 4, True, 0, 1.5]]]
    assert Journal(tmp_path / "v.jsonl").get("k") == [(0, 4, True, 0, 1.5)]


GOOD = "objective: 'A: b'\nslug: k\nagainst: [One., Two.]\nfine: [Three.]\n"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("- a", "k.yaml:1: must be a block with `objective`"),
        (GOOD + "agaist: []\n", "k.yaml:5: unknown key 'agaist'; did you mean 'against'"),
        (GOOD.replace("slug: k", "slug: other"), "k.yaml:2: slug: must be the name of the file, k"),
        (GOOD.replace("'A: b'", "brief"), 'k.yaml:1: objective: must read "Name: description"'),
        (GOOD.replace("[One., Two.]", "One."), "k.yaml:3: against: must be a list of sentences"),
        (GOOD.replace("fine: [Three.]", ""), "k.yaml:1: fine: must be a list of sentences"),
        (GOOD.replace("Three.", "3"), r"k.yaml:4: fine\[0\]: must be a sentence"),
        (GOOD.replace("Three.", "TWO"), r"k.yaml:4: fine\[0\]: stands twice \(first at k.yaml:3\)"),
        (GOOD.replace("[One.", "[One"), None),
    ],
)
def test_a_bad_file_is_refused_by_place(tmp_path: Path, text: str, fault: str | None) -> None:
    (tmp_path / "k.yaml").write_text(text)
    if fault is None:
        assert read_kinds(tmp_path)[0].teaching == ("One",)
        return
    with pytest.raises(ConfigError, match=fault):
        read_kinds(tmp_path)


def test_unknown_kinds_and_empty_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown kind 'nostalgy'; did you mean 'nostalgia'"):
        read_kinds(slugs=["nostalgy"])
    with pytest.raises(ConfigError, match="there are no objectives"):
        read_kinds(tmp_path)


def test_kinds_far_from_training_come_first_and_the_near_ones_are_those_of_the_readme() -> None:
    kinds = read_kinds()
    near = [kind.near for kind in kinds]
    assert near == sorted(near)
    assert near.count(False) >= 30
    section = (FOLDER / "README.md").read_text().partition("## How new the kinds are")[2].partition("## ")[0]
    slugs = {kind.slug for kind in kinds}
    assert {name for name in re.findall(r"`([a-z-]+)`", section) if name in slugs} == NEAR


def test_hosts_are_of_the_development_side(data_dir: Path) -> None:
    hosts = select_hosts(load_pool(data_dir, "dev").answers)
    assert hosts
    assert all(host.harmless for host in hosts)
    with pytest.raises(ConfigError, match="no answer on the development side"):
        select_hosts([PoolAnswer("q", "1. Open it.\n2. Close it.", "test")])
