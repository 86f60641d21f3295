"""How the gate is measured: right corrections pass, harms are harms, and the tables say what happened."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest

from aligner_proxy.text.facts import names, numbers
from aligner_proxy.text.structure import split
from aligner_proxy.types import GateRule
from models.data.pairs import Pair, write_pairs
from models.evaluate import gate
from models.evaluate.gate import (
    ALONE,
    BESIDE,
    HARMS,
    RIGHT,
    GateTrial,
    Harm,
    cut_pieces,
    harm_rates,
    measure,
    rule_rates,
    try_harm,
    try_target,
    try_whole_harms,
)

GOOD = (
    "The ferry leaves the pier 12 times a day. Ask Martha about the tickets in the morning. "
    "It is a calm crossing for all on board."
)
PAIR = Pair("When?", ("Respect: no insults",), f"{GOOD} You are a fool.", GOOD, (0, 0, 0, 1), "test")
BY_NAME = {harm.name: harm for harm in HARMS}


def test_pieces_are_those_of_a_removal() -> None:
    pieces = cut_pieces(PAIR)
    assert pieces is not None
    assert [piece.going for piece in pieces] == [False, False, False, True]
    assert cut_pieces(Pair("Q", ("O: o",), "One is bad.", "One is good.", (1,), "test")) is None
    assert cut_pieces(Pair("Q", ("O: o",), "One is bad.", "One is bad.", (-1,), "test")) is None


@pytest.mark.parametrize("headless", [False, True])
def test_a_right_correction_passes(headless: bool) -> None:
    assert try_target(PAIR, "insult", headless=headless) == GateTrial(
        gate.RIGHT_HEADLESS if headless else RIGHT, gate.RIGHT_HEADLESS if headless else RIGHT, "insult", (), True
    )


def test_a_changed_number_is_refused_and_the_right_edit_beside_it_delivered() -> None:
    for beside in (False, True):
        trial = try_harm(Random(1), BY_NAME["a number changed"], PAIR, beside=beside)
        assert trial is not None
        assert (trial.setting, trial.well) == (BESIDE if beside else ALONE, True)
        assert GateRule.LOST_NUMBER in trial.objections


def test_a_trial_of_a_harmless_harm_is_not_well() -> None:
    """The measurement can fail: an edit that does no harm is delivered, and counts as not refused."""
    harmless = Harm("nothing", frozenset({GateRule.LOST_NUMBER}), lambda rng, text, rest: text.replace("calm", "quiet"))
    trial = try_harm(Random(1), harmless, PAIR, beside=False)
    assert trial is not None
    assert (trial.well, trial.objections) == (False, ())


def test_what_cannot_be_harmed_is_no_trial() -> None:
    assert try_harm(Random(1), BY_NAME["the mark of an item lost"], PAIR, beside=False) is None
    clean = Pair("When?", ("Respect: no insults",), GOOD, GOOD, (0, 0, 0), "test")
    assert try_harm(Random(1), BY_NAME["a refusal"], clean, beside=True) is None


@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.name)
def test_every_harm_changes_something(harm: Harm) -> None:
    rng = Random(3)
    texts = [*harm.plant] or [
        "1. Ask Martha and Piet about 40 of them.",
        *(s.text for s in split(GOOD)),
    ]
    harmed_texts = [(text, bad) for text in texts for _ in range(3) if (bad := harm.write(rng, text, "")) is not None]
    assert harmed_texts
    assert all(bad != text for text, bad in harmed_texts)
    assert harm.rules


def test_numbers_and_names_that_stand_elsewhere_too_are_not_lost() -> None:
    write = BY_NAME["a number dropped"].write
    assert write(Random(1), "It leaves at 7.30.", "At 7.30.") is None
    assert numbers(write(Random(1), "It leaves at 7.30.", "") or "1") == set()
    drop = BY_NAME["a name dropped"].write
    assert drop(Random(1), "Ask about Martha.", "martha knows") is None
    assert names(drop(Random(1), "Ask about Martha.", "") or "Ask Martha") == set()


def test_harm_to_the_whole() -> None:
    long = Pair("When?", ("Respect: no insults",), " ".join([GOOD] * 3), " ".join([GOOD] * 3), (0,) * 9, "test")
    trials = {trial.kind: trial for trial in try_whole_harms(long)}
    assert set(trials) == set(gate.WHOLE_RULES)
    assert all(trial.well for trial in trials.values())
    assert list(try_whole_harms(PAIR)) == []


def test_rates_count_what_they_say() -> None:
    trials = [
        GateTrial(RIGHT, RIGHT, "a", (), True),
        GateTrial(RIGHT, RIGHT, "b", ("lost_number",), False),
        GateTrial("a number changed", ALONE, "", ("lost_number",), True),
        GateTrial("a number changed", ALONE, "", (), False),
        GateTrial("a number changed", BESIDE, "", ("lost_number",), True),
    ]
    harms = harm_rates(trials)["a number changed"]
    assert [(rate.hits, rate.n) for rate in harms.values()] == [(1, 2), (1, 2), (1, 1)]
    rule = rule_rates(trials)["lost_number"]
    assert [(rate.hits, rate.n) for rate in rule.values()] == [(1, 2), (0, 0), (1, 2), (2, 3)]
    rights = gate.right_rates(trials)
    assert [(name, rates[RIGHT].hits, rates[RIGHT].n) for name, rates in rights.items()] == [
        ("a", 1, 1),
        ("b", 0, 1),
        ("all", 1, 2),
    ]


@pytest.mark.full
def test_a_measurement_can_be_repeated(dev_sets: dict[str, list[Pair]]) -> None:
    few = {name: pairs[:1] for name, pairs in dev_sets.items()}
    trials = measure(few, 1, seed=1)
    assert len(trials) >= len(HARMS)
    assert measure(few, 1, seed=1) == trials


def test_the_command_writes_tables_and_json(
    dev_sets: dict[str, list[Pair]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pairs(tmp_path / "sets" / "insult.jsonl", dev_sets["insult"][:5])
    gate.main([str(tmp_path / "sets"), "--out", str(tmp_path / "out"), "--each", "1"])
    assert (tmp_path / "out" / "gate.md").read_text().startswith("| right corrections of | right | right, no head |")
    document = json.loads((tmp_path / "out" / "gate.json").read_text())
    assert set(document) == {"right", "harms", "rules"}
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == document
    with pytest.raises(SystemExit):
        gate.main([str(tmp_path / "nothing"), "--out", str(tmp_path / "out")])
