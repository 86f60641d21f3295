"""Reviews: people's verdicts on recorded answers, stored next to the audit entries and deleted with them.

A review is one verdict of one person on a choice or on one segment of it. A later review by the same person of the same
place replaces the earlier one. Reviews by several people are all kept, so that disagreements show. Texts written by
reviewers are encrypted if the store has a key, and bound to reviewer, verdict and place.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from pydantic import TypeAdapter, ValidationError

from aligner_proxy.audit.entry import Redact
from aligner_proxy.audit.store import AuditStore, Row
from aligner_proxy.errors import AlignerProxyError, AuditError
from aligner_proxy.plugins.extensions import Boundary


class UnknownAnswer(AlignerProxyError):
    """No answer of the caller's tenant has this id."""


class NoSuchPlace(AlignerProxyError):
    """A review names a segment or an objective that the answer does not have; `param` is the wrong field's name."""

    def __init__(self, param: str, message: str) -> None:
        super().__init__(message)
        self.param = param


class ReviewVerdict(StrEnum):
    """Verdicts on an answer, or on one segment of it."""

    RIGHT = "right"
    """The result is right, whether edited or not."""
    WRONG = "wrong"
    """It was edited without need; what was delivered is no worse."""
    HARM = "harm"
    """The edit made it worse."""
    MISSED = "missed"
    """Something should have been edited and was not."""


class ReviewOrigin(StrEnum):
    """How an answer was chosen for review; only random answers are representative."""

    NEAREST = "nearest"
    """Its score was the nearest to the threshold."""
    RANDOM = "random"
    """It was drawn at random from the answers without an edit."""
    FEEDBACK = "feedback"
    """An application's user chose it (`POST /v1/feedback`)."""


@dataclass(frozen=True, slots=True)
class Review:
    """One review; `at` in seconds since the epoch."""

    aligner_id: str
    choice: int
    verdict: ReviewVerdict
    who: str
    """The reviewer or sender, such as "reviewer:ana" or "key:" with the beginning of a key's hash."""
    at: float
    chosen: ReviewOrigin
    segment: int | None = None
    """Number of the judged segment; None for the whole choice."""
    edit: str | None = None
    """The text that should replace the segment, or the whole answer."""
    objective: str | None = None
    """The objective in question: a name, or "Name: description"."""
    tenant: str = ""
    """When saving: the only tenant whose answers it may be about; empty for any tenant."""
    policy_hash: str = ""
    aligner: str | None = None
    """Content hash of the aligner that judged the answer."""


@dataclass(frozen=True, slots=True)
class _ReviewTexts:
    """The texts that a reviewer wrote."""

    edit: str | None = None
    objective: str | None = None


_REVIEW_TEXTS: TypeAdapter[_ReviewTexts] = TypeAdapter(_ReviewTexts)
_UNENCRYPTED_COLUMNS = (
    "aligner_id",
    "choice",
    "tenant",
    "at",
    "who",
    "verdict",
    "segment",
    "chosen",
    "policy_hash",
    "aligner",
)
_COLUMNS = (*_UNENCRYPTED_COLUMNS, "sealed_by", "content")
_INSERT = f"INSERT INTO reviews ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"
# -1 stands for the whole choice, since NULL equals nothing in SQL.
_SAME_PLACE = "aligner_id = ? AND choice = ? AND who = ? AND ifnull(segment, -1) = ifnull(?, -1)"
_MAX_SEGMENT_DIGITS = 6
"""No answer has a segment whose number has more digits."""
_ENTRY_COLUMNS = "tenant, policy_hash, aligner, judged, objectives"
_SELECT_ENTRY = f"SELECT {_ENTRY_COLUMNS} FROM entries WHERE aligner_id = ? AND choice = ? AND aligner_id != ''"


class Reviews:
    """The reviews in an audit store."""

    def __init__(self, store: AuditStore) -> None:
        self._store = store

    def save(self, review: Review, redact: Redact) -> None:
        """Save a review with its texts redacted; it replaces an earlier review of the same segment by the same person.

        Tenant, policy and aligner come from the entry. Raises `UnknownAnswer` if the review's tenant (unless empty) has
        no such entry, `NoSuchPlace` for a segment or an objective that the answer does not have, and `CorrectionError`
        if `redact` fails.
        """
        review = _redact_review(review, redact)
        store = self._store
        place = (review.aligner_id, review.choice)
        # raises for an unknown id before the transaction, so that such an id does not block other writers
        self._find_entry(review)
        with store.transaction():
            tenant, policy_hash, aligner, judged_count, objectives = self._find_entry(review)
            _check_place(review, judged_count, json.loads(str(objectives)))
            columns = (*place, tenant, review.at, review.who, review.verdict.value, review.segment)
            store.fetch_rows(f"DELETE FROM reviews WHERE {_SAME_PLACE}", (*place, review.who, review.segment))
            texts = _REVIEW_TEXTS.dump_json(_ReviewTexts(review.edit, review.objective))
            sealed_columns = store.seal_content(texts, _seal_context(review))
            store.fetch_rows(_INSERT, (*columns, review.chosen.value, policy_hash, aligner, *sealed_columns))

    def _find_entry(self, review: Review) -> Row:
        """Return the `_ENTRY_COLUMNS` of the entry that a review is about; raises `UnknownAnswer` if there is none."""
        rows = self._store.fetch_rows(_SELECT_ENTRY, (review.aligner_id, review.choice))
        # another tenant's answer looks like one that does not exist
        if not rows or review.tenant not in ("", rows[0][0]):
            raise UnknownAnswer
        return rows[0]

    def withdraw(self, review: Review) -> bool:
        """Delete the review of the same segment by the same person; return whether it existed."""
        values = (review.aligner_id, review.choice, review.who, review.segment)
        with self._store.transaction():
            deleted_rows = self._store.fetch_rows(f"DELETE FROM reviews WHERE {_SAME_PLACE} RETURNING id", values)
        return bool(deleted_rows)

    def reviews_of(self, aligner_id: str, choice: int) -> list[Review]:
        """The reviews of one choice, in order of arrival."""
        return list(self._select("aligner_id = ? AND choice = ? ORDER BY id", (aligner_id, choice)))

    def all(self) -> Iterator[Review]:
        """Iterate over all reviews, in order of arrival; raises `AuditError` at a damaged one."""
        return self._select("1 = 1 ORDER BY id", ())

    def _select(self, condition: str, values: Sequence[object]) -> Iterator[Review]:
        for row in self._store.fetch_rows(f"SELECT {', '.join(_COLUMNS)} FROM reviews WHERE {condition}", values):
            yield self._decode_review(dict(zip(_COLUMNS, row, strict=True)))

    def _decode_review(self, columns: dict[str, Any]) -> Review:
        """Build a review from a row's columns, with its texts decrypted; raises `AuditError` if they are damaged."""
        sealed_by = columns.pop("sealed_by")
        content = columns.pop("content")
        columns["verdict"] = ReviewVerdict(str(columns["verdict"]))
        columns["chosen"] = ReviewOrigin(str(columns["chosen"]))
        review = Review(**columns)
        try:
            texts = _REVIEW_TEXTS.validate_json(self._store.unseal_content(content, sealed_by, _seal_context(review)))
        except ValidationError:
            raise AuditError("a review in the audit store is damaged") from None
        return replace(review, edit=texts.edit, objective=texts.objective)


def parse_segment(text: str) -> int | None:
    """Parse a segment's number; None (the whole answer) if empty, and -1, which no segment has, if it is no number."""
    if not text:
        return None
    return int(text) if text.isdecimal() and len(text) <= _MAX_SEGMENT_DIGITS else -1


def _redact_review(review: Review, redact: Redact) -> Review:
    """Return a copy of a review, with its texts redacted by the operator's function.

    Raises `CorrectionError` if the function fails.
    """
    # the function is not our code, so `Boundary` reports only the type of its errors
    with Boundary():
        edit = None if review.edit is None else redact(review.edit)
        objective = review.objective
        # the name of an active objective is the operator's own; a written-out one is the reviewer's text
        if objective is not None and ":" in objective:
            objective = redact(objective)
    return replace(review, edit=edit, objective=objective)


def _check_place(review: Review, judged_count: object, objectives: Sequence[str]) -> None:
    """Raise `NoSuchPlace` for a segment or an objective that the answer does not have.

    `judged_count` is the number of its judged segments; `objectives` are the names of its active objectives.
    """
    # the count of an answer that was not judged is NULL
    segment_count = judged_count if isinstance(judged_count, int) else 0
    if review.segment is not None and not 0 <= review.segment < segment_count:
        raise NoSuchPlace("segment", f"this answer has {segment_count} judged segments, counted from 0")
    objective = review.objective
    # an objective that the reviewer wrote out ("Name: description") need not be active
    if objective is not None and ":" not in objective and objective not in objectives:
        names = ", ".join(objectives) or "none"
        fix = 'name one of them, or write it out as "Name: description"'
        raise NoSuchPlace("objective", f"no such objective was active for this answer ({names}); {fix}")


def _seal_context(review: Review) -> bytes:
    """The data to which a review's encrypted text is bound, so that it cannot be moved to another review."""
    values = [review.aligner_id, review.choice, review.segment, review.who, review.verdict.value, review.at]
    return json.dumps(["review", *values]).encode()
