"""Entries of the shared Redis: whole, under their own name and, with a key, of those who have it; else refused."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligner_proxy_fleet import entries
from aligner_proxy_fleet.entries import ALTERED, FOREIGN, TRUNCATED, EntryCodec
from aligner_proxy_fleet.errors import RefusedEntry

KEY = bytes(range(32))
CONTENT = b'{"text": "It is so. It is so. It is so. It is so."}'
FORMS = [EntryCodec(), EntryCodec(KEY)]
IDS = ["plain", "encrypted"]


def packed(form: EntryCodec, content: bytes = CONTENT, name: str = "name") -> bytes:
    entry = form.pack(name, content)
    assert entry is not None
    return entry


def refusal(form: EntryCodec, entry: bytes, name: str = "name") -> str:
    with pytest.raises(RefusedEntry) as caught:
        form.unpack(name, entry)
    return caught.value.reason


@pytest.mark.parametrize("form", FORMS, ids=IDS)
@given(content=st.binary(max_size=3000))
def test_what_was_packed_is_read(form: EntryCodec, content: bytes) -> None:
    assert form.unpack("name", packed(form, content)) == content


@pytest.mark.parametrize("form", FORMS, ids=IDS)
def test_texts_get_smaller(form: EntryCodec) -> None:
    assert len(packed(form, CONTENT * 20)) < len(CONTENT * 20) / 4


@pytest.mark.parametrize("form", FORMS, ids=IDS)
def test_one_that_is_cut_off_anywhere_is_refused(form: EntryCodec) -> None:
    entry = packed(form)
    reasons = [refusal(form, entry[:end]) for end in range(len(entry))]
    assert reasons[:4] == [FOREIGN] * 4  # not even the mark is there
    assert set(reasons[4:]) == {TRUNCATED}


@pytest.mark.parametrize("form", FORMS, ids=IDS)
def test_one_changed_bit_anywhere_is_refused(form: EntryCodec) -> None:
    entry = packed(form)
    for place in range(len(entry)):
        changed = entry[:place] + bytes([entry[place] ^ 1]) + entry[place + 1 :]
        try:
            content = form.unpack("name", changed)
        except RefusedEntry:
            continue
        # A length that says less than what is there changes nothing of it.
        assert content == CONTENT
        assert 4 <= place < 8


@pytest.mark.parametrize("form", FORMS, ids=IDS)
def test_one_under_another_name_is_refused(form: EntryCodec) -> None:
    assert refusal(form, packed(form, name="one tenant's"), "another tenant's") == ALTERED


def test_with_a_key_nothing_of_the_text_is_there_and_others_can_make_no_entry() -> None:
    entry = packed(EntryCodec(KEY), bytes(range(256)))
    assert bytes(range(100, 116)) not in entry
    assert bytes(range(100, 116)) in packed(EntryCodec(), bytes(range(256)))
    assert refusal(EntryCodec(KEY), packed(EntryCodec())) == FOREIGN
    assert refusal(EntryCodec(KEY), packed(EntryCodec(bytes(32)))) == ALTERED
    assert refusal(EntryCodec(), entry) == FOREIGN


def test_gateways_with_different_keys_never_meet() -> None:
    prefixes = {form.prefix for form in (EntryCodec(), EntryCodec(KEY), EntryCodec(bytes(32)))}
    assert len(prefixes) == 3
    assert EntryCodec(KEY).prefix == EntryCodec(KEY).prefix


def test_what_unpacks_to_more_than_anybody_writes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries, "LARGEST", 1000)
    form = EntryCodec()
    assert form.pack("name", bytes(1001)) is None
    small = zlib.compress(bytes(5000))
    body = entries._digest("name", small) + small
    assert refusal(form, b"alp:" + len(body).to_bytes(4, "big") + body) == ALTERED
