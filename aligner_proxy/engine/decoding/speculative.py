"""Greedy decoding with draft tokens: the same tokens as one-by-one decoding, in fewer forward passes.

One forward pass checks a draft. The longest prefix that the model would have written itself is accepted, and the
model's own next token is added. That token is counted as recovered if a draft token was rejected, else as bonus.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace

from aligner_proxy.engine.decoding.proposer import DraftProposer, count_matching
from aligner_proxy.engine.scheduling.sequence import Ask, Score, Step, TokenSequence
from aligner_proxy.types import DecodeCounts, SegmentEvidence


@dataclass(slots=True)
class Tally:
    """Running counts of one correction: of tokens by origin (module docstring), and of forward passes."""

    drafted: int = 0
    accepted: int = 0
    recovered: int = 0
    bonus: int = 0
    forwards: int = 0

    def counts(self) -> DecodeCounts:
        return DecodeCounts(self.drafted, self.accepted, self.recovered, self.bonus, self.forwards)


@dataclass(frozen=True, slots=True)
class WrittenTokens:
    """Tokens written, without the end mark; `finished` is False when the token limit cut them off.

    `scores` and `evidence` are those of the step that read the prompt; both are empty if nothing was to be scored.
    """

    ids: list[int]
    finished: bool
    scores: list[Score] = field(default_factory=list)
    evidence: list[SegmentEvidence] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class WritingLimits:
    """When to stop: after `tokens`, or once `is_done`, which is called after every step, returns true for the tokens.

    The model replaces a draft token only by one whose logit is higher by more than `caution`, in nats.
    """

    tokens: int
    caution: float = 0.0
    is_done: Callable[[list[int]], bool] = lambda _: False


def generate(
    sequence: TokenSequence,
    first_ask: Ask,
    proposer: DraftProposer,
    limits: WritingLimits,
    tally: Tally,
    eos_ids: frozenset[int],
) -> Generator[Ask, Step, WrittenTokens]:
    """Feed `first_ask` with a draft, then decode greedily until the end mark, `limits.is_done`, or the token limit.

    Updates `sequence` and `tally` with every step. Each of `eos_ids` counts as the end mark. Example: the draft is "The
    cat sat" and the model would write "The dog": "The" is accepted, "dog" is recovered, and "cat sat" is taken back out
    of `sequence`. The next draft follows "dog".
    """
    output: list[int] = []
    scores: list[Score] = []
    evidence: list[SegmentEvidence] = []
    while True:
        # the draft has one token less than may be written, because the step adds the model's own token
        draft = proposer.propose(limits.tokens - len(output) - 1)
        favoured = draft + proposer.guess_next_token(draft)
        if output:
            step = yield Ask(output[-1:], draft, favoured, limits.caution)
        else:
            step = yield replace(first_ask, draft=draft, favoured=favoured, caution=limits.caution)
        # only the first step has scores, because it reads the prompt
        scores = scores or step.scores
        evidence = evidence or step.evidence
        accepted = count_matching(draft, step.tokens)
        # rejected draft tokens were fed, too, so they are taken back out of the sequence
        sequence.crop(len(sequence.ids) - len(draft) + accepted)
        new_tokens = collect_tokens(draft, accepted, step.tokens[accepted], eos_ids, tally)
        tally.forwards += step.forwards
        output.extend(new_tokens)
        is_ended = output[-1] in eos_ids
        if is_ended:
            del output[-1]
        finished = is_ended or limits.is_done(output)
        if finished or len(output) >= limits.tokens:
            return WrittenTokens(output, finished, scores, evidence)
        proposer.update(output, len(draft), accepted)


def collect_tokens(draft: list[int], accepted: int, own_token: int, eos_ids: frozenset[int], tally: Tally) -> list[int]:
    """Return the tokens that one step wrote, up to and including the end mark, and count them in `tally`.

    With the draft `[5, 6, 7]`, of which 2 are `accepted`, and 9 as the model's own token, the result is `[5, 6, 9]`.
    """
    tally.drafted += len(draft)
    if not eos_ids.isdisjoint(draft[:accepted]):
        # the draft went on after an accepted end mark, but the text does not
        stop = next(place + 1 for place in range(accepted) if draft[place] in eos_ids)
        tally.accepted += stop
        return draft[:stop]
    tally.accepted += accepted
    tally.recovered += accepted < len(draft)
    tally.bonus += accepted == len(draft)
    return [*draft[:accepted], own_token]
