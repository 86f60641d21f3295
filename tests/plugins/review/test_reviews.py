"""Reviews: kept beside their entries, one a person and place, encrypted with them and gone with them."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from aligner_proxy.audit.entry import make_entry
from aligner_proxy.audit.location import StoreLocation, open_store
from aligner_proxy.audit.retention import RetentionLimits, RetentionWorker
from aligner_proxy.audit.store import STEPS, AuditStore, Seal
from aligner_proxy.errors import AuditError
from aligner_proxy_review.reviews import NoSuchPlace, Review, ReviewOrigin, Reviews, ReviewVerdict, UnknownAnswer
from tests.audit.conftest import noted

KEY = bytes(range(32))
OTHER = bytes(32)


def given(number: int = 0, **fields: object) -> Review:
    """A review of the answer with this number."""
    said = Review(f"id-{number}", 0, ReviewVerdict.WRONG, "key:anna", 2000.0, ReviewOrigin.FEEDBACK)
    return replace(said, **fields)  # type: ignore[arg-type]


def opened(place: StoreLocation, count: int = 1, seal: Seal | None = None) -> AuditStore:
    """A store with so many answers."""
    store = open_store(place, seal)
    for n in range(count):
        store.add(make_entry(replace(noted(n, at=1000.0 + n), aligner_id=f"id-{n}")))
    return store


def test_a_review_comes_back_with_what_the_entry_says(place: StoreLocation) -> None:
    store = opened(place)
    said = given(segment=1, edit="It is so, friend.", objective="kind")
    Reviews(store).save(said, str)
    (kept,) = Reviews(store).reviews_of("id-0", 0)
    (of,) = store.entries()
    assert kept == replace(said, tenant="team:acme", policy_hash=of.policy_hash, aligner="abc")
    store.close()


def test_a_later_word_of_the_same_person_replaces_the_earlier_one_and_others_stand_beside_it(
    place: StoreLocation,
) -> None:
    store = opened(place)
    reviews = Reviews(store)
    reviews.save(given(), str)
    reviews.save(given(verdict=ReviewVerdict.RIGHT, at=2001.0), str)
    reviews.save(given(verdict=ReviewVerdict.HARM, who="key:ben"), str)
    reviews.save(given(verdict=ReviewVerdict.MISSED, segment=0), str)
    assert [(r.who, r.verdict.value, r.segment) for r in reviews.all()] == [
        ("key:anna", "right", None),
        ("key:ben", "harm", None),
        ("key:anna", "missed", 0),
    ]
    assert reviews.withdraw(given())
    assert not reviews.withdraw(given())
    assert [(r.who, r.verdict.value) for r in reviews.reviews_of("id-0", 0)] == [
        ("key:ben", "harm"),
        ("key:anna", "missed"),
    ]
    store.close()


@pytest.mark.parametrize(
    "said", [given(7), given(choice=1), given(tenant="team:other"), replace(given(), aligner_id="")]
)
def test_what_is_not_on_record_for_its_tenant_takes_no_review(place: StoreLocation, said: Review) -> None:
    store = opened(place)
    store.add(make_entry(noted(9)))
    with pytest.raises(UnknownAnswer):
        Reviews(store).save(said, str)
    assert list(Reviews(store).all()) == []
    store.close()


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"segment": 2}, "segment"), ({"segment": -1}, "segment"), ({"objective": "kindd"}, "objective")],
)
def test_a_place_that_the_answer_does_not_have_is_named(
    place: StoreLocation, fields: dict[str, object], param: str
) -> None:
    store = opened(place)
    with pytest.raises(NoSuchPlace) as caught:
        Reviews(store).save(given(**fields), str)
    assert caught.value.param == param
    assert "kindd" not in str(caught.value)
    Reviews(store).save(given(segment=1, objective="Brevity: be brief"), str)
    store.close()


@pytest.mark.parametrize("how", ["first", "erased", "age", "size", "other connection"])
def test_reviews_go_with_their_entry(path: Path, how: str) -> None:
    store = opened(path, 3)
    for n in range(3):
        Reviews(store).save(given(n), str)
    if how == "first":
        assert store.delete_first(1) == 1
    elif how == "erased":
        assert store.erase([1]) == 1
    elif how == "other connection":
        with sqlite3.connect(path) as other:
            other.execute("DELETE FROM entries WHERE aligner_id = 'id-0'")
        other.close()
    else:
        tidier = RetentionWorker(path, RetentionLimits(1e12, 1) if how == "size" else RetentionLimits(1.0, 2**30))
        assert tidier.delete_old() == (3 if how == "size" else 1)
        tidier.close()
    left = [review.aligner_id for review in Reviews(store).all()]
    assert left == ([] if how == "size" else ["id-1", "id-2"])
    assert left == [one.aligner_id for one in list(store.entries())[::-1]]
    store.close()


def test_a_freed_row_id_brings_no_review_back(place: StoreLocation) -> None:
    store = opened(place)
    Reviews(store).save(given(), str)
    store.erase([1])
    store.add(make_entry(replace(noted(), aligner_id="id-new")))
    assert list(Reviews(store).all()) == []
    with pytest.raises(UnknownAnswer):
        Reviews(store).save(given(), str)
    store.close()


def test_with_a_key_nothing_that_a_person_wrote_is_in_any_file(path: Path) -> None:
    store = opened(path, seal=Seal(KEY))
    Reviews(store).save(given(edit="So it is, dear.", objective="Warmth: be warm"), str)
    files = list(path.parent.glob(path.name + "*"))
    assert not [file for file in files if b"dear" in file.read_bytes() or b"Warmth" in file.read_bytes()]
    (kept,) = Reviews(store).all()
    assert (kept.edit, kept.objective) == ("So it is, dear.", "Warmth: be warm")
    store.close()
    other = AuditStore(path, Seal(OTHER))
    with pytest.raises(AuditError, match=f"encrypted with key {Seal(KEY).name}"):
        list(Reviews(other).all())
    other.close()


@pytest.mark.parametrize("change", ["verdict = 'right'", "who = 'key:ben'", "segment = 1", "aligner_id = 'id-1'"])
def test_a_review_that_was_changed_does_not_open(place: StoreLocation, change: str) -> None:
    store = opened(place, 2, Seal(KEY))
    Reviews(store).save(given(), str)
    store.fetch_rows(f"UPDATE reviews SET {change}")
    with pytest.raises(AuditError, match="changed, moved or cut off"):
        list(Reviews(store).all())
    store.close()


def test_a_damaged_review_is_told_without_its_text(place: StoreLocation) -> None:
    store = opened(place)
    Reviews(store).save(given(), str)
    store.fetch_rows("UPDATE reviews SET content = '[\"secret\"]'")
    with pytest.raises(AuditError, match="a review in the audit store is damaged"):
        list(Reviews(store).all())
    store.close()


def test_a_store_from_before_reviews_reads_as_before(path: Path) -> None:
    columns = "at, call_id, choice, tenant, model, endpoint, policy, policy_hash, mode, objectives, status, reason"
    values = (1000.0, "call-0", 0, "team:acme", "gpt", None, "all", "ab", "enforce", '["kind"]', "unchanged", None)
    old = AuditStore(path, steps=STEPS[:1])
    old.fetch_rows(
        f"INSERT INTO entries ({columns}, ms, engine_ms, forwards, chars) VALUES ({', '.join('?' * 12)}, 1, 1, 1, 9)",
        values,
    )
    old.close()
    store = AuditStore(path)
    (kept,) = store.entries()
    assert (kept.call_id, kept.status, kept.chars, kept.content) == ("call-0", "unchanged", 9, None)
    assert (kept.aligner_id, kept.judged, kept.changed, kept.margin) == ("", None, None, None)
    assert store.delete_first(1) == 1
    store.close()


def test_what_stands_in_the_clear_is_read_without_the_key(place: StoreLocation) -> None:
    store = opened(place, 2, Seal(KEY))
    store.close()
    other = open_store(place, Seal(OTHER))
    found = list(other.select("1 = 1 ORDER BY id", (), texts=False))
    other.close()
    assert [(one.aligner_id, one.changed, one.content) for one in found] == [("id-0", True, None), ("id-1", True, None)]
