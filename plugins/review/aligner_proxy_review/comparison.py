"""Compares two aligners or two policies by their recorded answers and reviews.

Each is named by a prefix of its hash in the store. Answers that both judged are compared one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from aligner_proxy.errors import ConfigError
from aligner_proxy.plugins.api import Entry
from aligner_proxy_review.evidence import Evidence, PairedAnswers, Share, compute_evidence, pair_answers
from aligner_proxy_review.reviews import Review

_SHORTEST = 4
"""Least number of hash digits that name an aligner or a policy."""
_SHARES = (
    # label, and attribute of `Evidence`
    ("changed", "changed"),
    ("edits that are right", "right"),
    ("edits that are wrong or do harm", "wrong"),
    ("missed, of those drawn at random", "missed"),
)
_SAME = ("changed by neither", "by A alone", "by B alone", "alike", "otherwise")
"""Labels of the counts in `PairedAnswers`, in order."""


@dataclass(frozen=True, slots=True)
class EvidenceComparison:
    """The evidence about A and about B, and what they did to the answers that both judged."""

    first: Evidence
    second: Evidence
    both: PairedAnswers

    @property
    def shares(self) -> list[tuple[str, Share, Share]]:
        """(label, share of A, share of B) for each share."""
        return [(label, getattr(self.first, name), getattr(self.second, name)) for label, name in _SHARES]

    @property
    def paired_shares(self) -> list[tuple[str, Share]]:
        """Shares of the answers that both judged, each with its label, such as "by A alone"."""
        # the first field is the number of answers
        counts = list(asdict(self.both).values())[1:]
        return [(label, Share(count, self.both.answers)) for label, count in zip(_SAME, counts, strict=True)]

    @property
    def may_be_chance(self) -> bool:
        """Whether the intervals of the shares of wrong edits overlap."""
        first = self.first.wrong.interval
        second = self.second.wrong.interval
        # each lower end is below the other's upper end
        return first[1] <= second[2] and second[1] <= first[2]


def compare_evidence(
    entries: Iterable[Entry], reviews: Sequence[Review], first: str, second: str
) -> EvidenceComparison:
    """Compare the aligners or policies with these hash prefixes; raises `ConfigError` unless each fits one hash."""
    judged_entries = [entry for entry in entries if entry.changed is not None]
    sides = [select_answers(judged_entries, first), select_answers(judged_entries, second)]
    if first == second:
        raise ConfigError("A and B are the same; name two")
    return EvidenceComparison(
        compute_evidence(sides[0], reviews), compute_evidence(sides[1], reviews), pair_answers(*sides)
    )


def select_answers(entries: Sequence[Entry], prefix: str) -> list[Entry]:
    """Return the answers of one aligner or policy; raises `ConfigError` if the prefix matches no hash or several."""
    if len(prefix) < _SHORTEST:
        raise ConfigError(f"{prefix!r} is too short; give at least {_SHORTEST} digits of a hash")
    hashes = {hash_ for entry in entries for hash_ in (entry.aligner, entry.policy_hash) if hash_}
    fitting_hashes = sorted(hash_ for hash_ in hashes if hash_.startswith(prefix))
    # a prefix that fits several hashes would mix their answers
    if len(fitting_hashes) != 1:
        prefixes = ", ".join(sorted(hash_[:12] for hash_ in hashes)) or "none"
        fault = "several hashes begin" if fitting_hashes else "no hash begins"
        raise ConfigError(f"{fault} with {prefix!r} among these answers; there are: {prefixes}")
    return [entry for entry in entries if fitting_hashes[0] in (entry.aligner, entry.policy_hash)]
