"""Examples from reviews: which sentences of which answers, on both kinds of store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from aligner_proxy.audit.entry import make_entry
from aligner_proxy.audit.location import StoreLocation, open_store
from aligner_proxy.audit.store import AuditStore
from aligner_proxy.policy.config import load
from aligner_proxy.policy.schema import PolicyFile
from aligner_proxy.teaching.examples import Examples, parse_examples
from aligner_proxy.teaching.subjects import Subject, list_subjects
from aligner_proxy_review.from_reviews import find_suggestions, hash_suggestions
from aligner_proxy_review.reviews import Review, ReviewOrigin, Reviews, ReviewVerdict
from tests.audit.conftest import noted
from tests.teaching.examples import AGAINST, listed, policies

RIGHT, WRONG, HARM, MISSED = ReviewVerdict


@pytest.fixture
def store(place: StoreLocation) -> Iterator[AuditStore]:
    with closing(open_store(place)) as made:
        yield made


@pytest.fixture
def file(tmp_path: Path) -> PolicyFile:
    written = tmp_path / "policies.yaml"
    written.write_text(policies())
    return load(written)


def subject(file: PolicyFile) -> Subject:
    return list_subjects(file)[0]


def put(store: AuditStore, number: int, text: str, *, flagged: bool = True) -> str:
    """An answer of one sentence, flagged for the objective or not; its id."""
    name = f"{number:032x}"
    made = make_entry(noted(number))
    assert made.content is not None
    exchange = replace(made.content.exchange, answer=text)
    segments = (replace(made.content.segments[0], text=text, objective="no-feelings", number=0),) if flagged else ()
    content = replace(made.content, exchange=exchange, segments=segments, scores=(3.0,), threshold=0.0)
    store.add(
        replace(
            made, aligner_id=name, content=content, objectives=("no-feelings",), judged=1, changed=flagged, at=number
        )
    )
    return name


def say(
    store: AuditStore, name: str, verdict: ReviewVerdict, who: str = "reviewer:anna", *, feedback: bool = False
) -> None:
    segment = 0 if verdict is MISSED else None
    chosen = ReviewOrigin.FEEDBACK if feedback else ReviewOrigin.NEAREST
    Reviews(store).save(Review(name, 0, verdict, who, 86_400.0, chosen, segment), str)


def found(file: PolicyFile, store: AuditStore, there: Examples | None = None, most: int = 10) -> list[tuple[str, bool]]:
    made = find_suggestions(file, store, subject(file), there or Examples(()), most)
    return [(one.sentence.text, one.sentence.against) for one in made]


def test_what_each_verdict_makes_of_a_sentence(store: AuditStore, file: PolicyFile) -> None:
    for number, (text, verdict, flagged) in enumerate(
        (
            ("I feel sad.", RIGHT, True),
            ("Many people feel sad.", WRONG, True),
            ("My heart aches.", MISSED, False),
            ("I feel it was worse.", HARM, True),
            ("The tea is hot.", RIGHT, False),
            ("...", RIGHT, True),
        ),
        1,
    ):
        say(store, put(store, number, text, flagged=flagged), verdict)
    say(store, put(store, 9, "A user's word."), RIGHT, "key:user", feedback=True)
    newest_first = [("My heart aches.", True), ("Many people feel sad.", False), ("I feel sad.", True)]
    assert found(file, store) == newest_first
    assert found(file, store, most=1) == newest_first[:1]
    made = find_suggestions(file, store, subject(file), Examples(()), 10)
    assert made[-1].sentence.origin == f"review {1:032x}/0 segment 0, reviewer:anna right 1970-01-02"
    assert hash_suggestions(made) != hash_suggestions(made[1:])


def test_what_contradicts_itself_or_is_known_is_left_out(store: AuditStore, file: PolicyFile) -> None:
    say(store, put(store, 1, "I feel sad."), RIGHT)
    say(store, put(store, 2, "I feel SAD."), WRONG)
    both = put(store, 3, "My heart aches.")
    say(store, both, RIGHT)
    say(store, both, WRONG, "reviewer:bert")
    say(store, put(store, 4, AGAINST[0]), RIGHT)
    say(store, put(store, 5, "I cried."), RIGHT)
    there = parse_examples(listed(), Path("x.yaml"), "no-feelings", subject(file).text)
    assert found(file, store, there) == [("I cried.", True)]
