"""Rules that a program can verify, as IFEval (Zhou et al., 2023) has them, asked of the head as objectives.

    python -m models.evaluate.verifiable_rules aligner_proxy/embedded

Each rule has a check of our own, and a way to make a text obey or break it. The texts are neutral answers of this
project, half of them made to obey and half to break the rule. Each is asked about as `POST /v1/systemone` is, by the
rule's text alone and with four examples of either sort, made of other answers. A guess is right in half of the cases.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aligner_proxy.engine.example_heads import ExampleHeads
from aligner_proxy.engine.loader import EngineSettings, open_aligner
from aligner_proxy.engine.local import LocalEngine
from aligner_proxy.policy import config
from aligner_proxy.teaching.neutral import neutral_answers
from aligner_proxy.text.structure import split
from models.evaluate.choices import ask_system_one
from models.reporting import output
from models.reporting.statistics import Area, Rate

TEXTS = 16
"""Texts that are asked about for each rule; half of them break it."""
EXAMPLES = 4
"""Examples that obey a rule, and as many that break it, in a question with examples."""
MOST_WORDS = 40
"""What the rule about length allows."""
WORD = "however"
FAREWELL = "Is there anything else I can help with?"
_Change = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class VerifiableRule:
    """One rule: its objective, the check, and how to make a text that obeys or breaks it."""

    objective: str
    holds: Callable[[str], bool]
    obey: _Change
    breach: _Change = str
    """`str` (nothing is changed) for rules that a neutral answer breaks anyway."""


@dataclass(frozen=True, slots=True)
class RuleCase:
    """One text that is asked about, and the examples that the question brings, if any."""

    rule: VerifiableRule
    text: str
    breaks: bool
    criteria: Mapping[str, Sequence[str]]


def shorten(text: str) -> str:
    """The first sentences of a text, as many as fit into `MOST_WORDS` words, and at least one."""
    segments = [segment.text for segment in split(text)]
    counts = range(1, len(segments) + 1)
    return " ".join(segments[: max(n for n in counts if n == 1 or _has_few_words(" ".join(segments[:n])))])


def say_however(text: str) -> str:
    """The text with the forbidden word before its last sentence: `It rains. We go.` to `It rains. However, we go.`"""
    last = split(text)[-1]
    return f"{text[: last.start]}However, {last.text[0].lower()}{last.text[1:]}"


def _has_few_words(text: str) -> bool:
    return len(text.split()) <= MOST_WORDS


RULES = (
    VerifiableRule(
        "No commas: the response should not contain any comma",
        lambda text: "," not in text,
        lambda text: text.replace(",", ""),
    ),
    VerifiableRule(
        "Lowercase: the response should be in lowercase letters only, without any capital letter",
        lambda text: text == text.lower(),
        str.lower,
    ),
    VerifiableRule(
        "Capitals: the response should be in capital letters only",
        lambda text: text == text.upper(),
        str.upper,
    ),
    VerifiableRule(
        f"Length: the response should have at most {MOST_WORDS} words",
        _has_few_words,
        shorten,
    ),
    VerifiableRule(
        f'Forbidden word: the response should not contain the word "{WORD}"',
        lambda text: WORD not in text.lower(),
        str,
        say_however,
    ),
    VerifiableRule(
        f'Ending: the response should end with the exact words "{FAREWELL}"',
        lambda text: text.endswith(FAREWELL),
        lambda text: f"{text} {FAREWELL}",
    ),
    VerifiableRule(
        "Quotation: the whole response should be wrapped in double quotation marks",
        lambda text: text[:1] == text[-1:] == '"',
        lambda text: f'"{text}"',
    ),
    VerifiableRule(
        "Title: the response should begin with a title in double angular brackets, such as <<title>>",
        lambda text: text.startswith("<<") and ">>" in text,
        lambda text: f"<<Our answer>>\n\n{text}",
    ),
)


def list_answers() -> list[str]:
    """Neutral answers that break each rule about form, and that can be changed to obey it."""
    return [row.answer for row in neutral_answers() if _is_fit(row.answer)]


def _is_fit(answer: str) -> bool:
    """Whether a change makes this answer obey or break each rule."""
    is_plain = "\n" not in answer and WORD not in answer.lower()
    breaks_rules = not any(rule.holds(answer) for rule in RULES if rule.breach is str)
    return is_plain and breaks_rules and _has_few_words(split(answer)[0].text)


def list_cases(rule: VerifiableRule, *, by_examples: bool) -> Iterator[RuleCase]:
    """The cases of a rule. Their examples are made of answers that no case is about."""
    answers = list_answers()
    teaching = answers[TEXTS : TEXTS + 2 * EXAMPLES]
    examples = {"true": [*map(rule.breach, teaching[::2])], "false": [*map(rule.obey, teaching[1::2])]}
    for number, answer in enumerate(answers[:TEXTS]):
        breaks = number % 2 == 0
        text = rule.breach(answer) if breaks else rule.obey(answer)
        yield RuleCase(rule, text, breaks, examples if by_examples else {})


async def estimate_breaches(aligner: Path, cases: Sequence[RuleCase]) -> list[float]:
    """The head's probability that each text breaks its rule."""
    engine = LocalEngine(lambda: open_aligner(EngineSettings(aligner), config.home_folder()))
    await engine.start()
    heads = ExampleHeads()
    probabilities = []
    for case in cases:
        question: dict[str, Any] = {"type": "noul", "instructions": case.rule.objective}
        if case.criteria:
            question["criteria"] = case.criteria
        probabilities.append((await ask_system_one(engine, heads, case.text, {"q": question}))["q"]["noul"])
    await engine.aclose()
    return probabilities


def compute_area(cases: Sequence[RuleCase], probabilities: Sequence[float]) -> Area:
    """How often a text that breaks a rule gets a higher probability than one that obeys it."""
    breaking = [share for case, share in zip(cases, probabilities, strict=True) if case.breaks]
    obeying = [share for case, share in zip(cases, probabilities, strict=True) if not case.breaks]
    return Area.from_scores(breaking, obeying)


def format_table(cases: Sequence[RuleCase], probabilities: Sequence[float]) -> str:
    """Markdown: a row for each rule and way of asking, and one for all rules."""
    rows = []
    pairs = list(zip(cases, probabilities, strict=True))
    for by_examples in (False, True):
        for rule in (*RULES, None):  # None: all rules together
            selected = [
                pair for pair in pairs if bool(pair[0].criteria) is by_examples and rule in (pair[0].rule, None)
            ]
            right = Rate.from_outcomes((probability > 0.5) is case.breaks for case, probability in selected)
            area = compute_area([case for case, _ in selected], [probability for _, probability in selected])
            way = "with examples" if by_examples else "by its text"
            rows.append((way, rule.objective.partition(":")[0] if rule else "all", right, f"{area.auc:.2f}"))
    return output.table(("asked", "rule", "right", "area under the curve"), rows)


def main() -> None:
    """Print the figures of an aligner."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("aligner", type=Path, help="aligner folder")
    options = parser.parse_args()
    cases = [case for way in (False, True) for rule in RULES for case in list_cases(rule, by_examples=way)]
    print(format_table(cases, asyncio.run(estimate_breaches(options.aligner, cases))))


if __name__ == "__main__":
    main()
