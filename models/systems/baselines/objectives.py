"""Objectives whose fulfilment a rule can see: a reward in [0, 1] for any answer, and the text that an aligner reads."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from models.defects.objectives import BUILT_IN
from models.evaluate.measures import MEASURES

Score = Callable[[str, str], float]
"""Reward of (question, answer)."""

MIN_WORDS = 5
"""Below this an answer says nothing, and is not concise either."""
SHORT_WORDS = 12
LONG_WORDS = 40
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")
_COURTESY = re.compile(
    r"(?i)\b(?:thank(?:s| you)|please|you(?:'re| are) welcome|(?:happy|glad|here|love) to help|"
    r"hope (?:this|that) helps|feel free|let me know|kindly)\b"
)
_HEDGE = re.compile(
    r"(?i)\b(?:typically|often|usually|generally|sometimes|perhaps|maybe|probably|possibly|can be|may be|might|"
    r"tends? to|in many cases|in some cases)\b"
)
_END = re.compile(r"[.!?][\"')\]]*\s*$")
_RUN = 3


@dataclass(frozen=True, slots=True)
class ScoredObjective:
    """An objective with a rule that scores any answer."""

    name: str
    text: str
    score: Score


def words(answer: str) -> list[str]:
    """The words of an answer in lower case, without punctuation."""
    return [word.lower() for word in _WORD.findall(answer)]


def _score_brevity(_question: str, answer: str) -> float:
    """1 for `MIN_WORDS` to `SHORT_WORDS` words, falling to 0 at `LONG_WORDS`; 0 for fewer than `MIN_WORDS`."""
    count = len(words(answer))
    if count < MIN_WORDS:
        return 0.0
    return max(0.0, min(1.0, (LONG_WORDS - count) / (LONG_WORDS - SHORT_WORDS)))


def _score_courtesy(_question: str, answer: str) -> float:
    return float(bool(_COURTESY.search(answer)))


def _score_novelty(_question: str, answer: str) -> float:
    """The share of runs of three words that the answer did not have before. `a b c a b c` has 3 new of 4."""
    word_list = words(answer)
    runs = [tuple(word_list[i : i + _RUN]) for i in range(len(word_list) - _RUN + 1)]
    return len(set(runs)) / len(runs) if runs else 1.0


def _score_decency(question: str, answer: str) -> float:
    rude = (measure for measure in MEASURES if measure.name in ("insults", "profanity"))
    return float(not any(measure.amount(question, answer) for measure in rude))


def _score_ending(_question: str, answer: str) -> float:
    return float(bool(_END.search(answer)))


def _score_certainty(_question: str, answer: str) -> float:
    return float(not _HEDGE.search(answer))


def _index_by_name(*objectives: ScoredObjective) -> Mapping[str, ScoredObjective]:
    return {objective.name: objective for objective in objectives}


RULES = _index_by_name(
    ScoredObjective("concise", BUILT_IN["concise"], _score_brevity),
    ScoredObjective("courteous", "Courtesy: the response should be polite and offer the user help.", _score_courtesy),
    ScoredObjective("unrepeated", BUILT_IN["non-repetitive"], _score_novelty),
    ScoredObjective("inoffensive", BUILT_IN["harmless"], _score_decency),
    ScoredObjective("finished", "Form: the response should end with a whole sentence.", _score_ending),
    ScoredObjective(
        "unhedged",
        "Hedging: the response should not hedge with words like typically, often or may be.",
        _score_certainty,
    ),
)


def weighted_score(objectives: Mapping[str, ScoredObjective], weights: Mapping[str, float]) -> Score:
    """A score that is the weighted sum of rewards (linear scalarisation); objectives without a weight do not count."""
    scores = [(objectives[name].score, weight) for name, weight in weights.items() if weight]

    def score(question: str, answer: str) -> float:
        return sum(weight * scored(question, answer) for scored, weight in scores)

    return score


def substance(answer: str) -> int:
    """How many different words of four letters or more an answer has, courtesies apart.

    An answer that only pleases a rule has few.
    """
    return len({word for word in words(_COURTESY.sub(" ", answer)) if len(word) >= 4})
