"""Comparison of two aligners or two policies, called A and B, by their recorded answers and reviews.

Each is named by the first digits of its hash in the store. Answers that both judged are compared one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from aligner_proxy.errors import ConfigError
from aligner_proxy.plugins.api import Entry
from aligner_proxy_review.evidence import Evidence, PairedAnswers, Share, compute_evidence, pair_answers
from aligner_proxy_review.reviews import Review

_MIN_DIGITS = 4
"""An aligner or a policy is named by at least this many digits of its hash."""
_SHARES = (
    # label, attribute of `Evidence`
    ("changed", "changed"),
    ("edits that are right", "right"),
    ("edits that are wrong or do harm", "wrong"),
    ("missed, of those drawn at random", "missed"),
)
_PAIR_LABELS = ("changed by neither", "by A alone", "by B alone", "alike", "otherwise")
"""Labels of the fields of `PairedAnswers` after the first, in order."""


@dataclass(frozen=True, slots=True)
class EvidenceComparison:
    """The evidence about A and about B, and what they did to the answers that both judged."""

    first: Evidence
    second: Evidence
    both: PairedAnswers

    @property
    def shares(self) -> list[tuple[str, Share, Share]]:
        """(label, share of A, share of B) for each share of `_SHARES`."""
        return [(label, getattr(self.first, name), getattr(self.second, name)) for label, name in _SHARES]

    @property
    def paired_shares(self) -> list[tuple[str, Share]]:
        """(label, share) of the answers that both judged, for each way in which A and B may have changed them."""
        answers, *counts = asdict(self.both).values()
        return [(label, Share(count, answers)) for label, count in zip(_PAIR_LABELS, counts, strict=True)]

    @property
    def may_be_chance(self) -> bool:
        """Whether the intervals of the shares of wrong edits overlap, so that the difference may be chance."""
        first = self.first.wrong
        second = self.second.wrong
        return first.lower_end <= second.upper_end and second.lower_end <= first.upper_end


def compare_evidence(
    entries: Iterable[Entry], reviews: Sequence[Review], first: str, second: str
) -> EvidenceComparison:
    """Compare the aligners or policies whose hashes begin with `first` (A) and `second` (B).

    Raises `ConfigError` unless each prefix fits exactly one hash among these recorded answers.
    """
    judged_entries = [entry for entry in entries if entry.changed is not None]
    first_entries = select_answers(judged_entries, first)
    second_entries = select_answers(judged_entries, second)
    if first == second:
        raise ConfigError("A and B are the same; name two")
    return EvidenceComparison(
        compute_evidence(first_entries, reviews),
        compute_evidence(second_entries, reviews),
        pair_answers(first_entries, second_entries),
    )


def select_answers(entries: Sequence[Entry], prefix: str) -> list[Entry]:
    """Return the entries of the aligner or policy whose hash begins with `prefix`.

    Raises `ConfigError` if the prefix is too short, or fits no hash or several.
    """
    if len(prefix) < _MIN_DIGITS:
        raise ConfigError(f"{prefix!r} is too short; give at least {_MIN_DIGITS} digits of a hash")
    hashes = {hash_ for entry in entries for hash_ in (entry.aligner, entry.policy_hash) if hash_}
    fitting_hashes = sorted(hash_ for hash_ in hashes if hash_.startswith(prefix))
    # a prefix that fits several hashes would mix their answers
    if len(fitting_hashes) != 1:
        prefixes = ", ".join(sorted(hash_[:12] for hash_ in hashes)) or "none"
        fault = "several hashes begin" if fitting_hashes else "no hash begins"
        raise ConfigError(f"{fault} with {prefix!r} among these answers; there are: {prefixes}")
    return [entry for entry in entries if fitting_hashes[0] in (entry.aligner, entry.policy_hash)]
