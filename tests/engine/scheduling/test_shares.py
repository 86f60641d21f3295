"""Who is next: the tenant that has had least, with a little credit after a pause and no more."""

from __future__ import annotations

from aligner_proxy.engine.scheduling.shares import Shares


def test_who_has_had_less_is_next() -> None:
    shares = Shares()
    shares.note_tenants(["a", "b"])
    shares.give("a", 100)
    assert shares.count_given_tokens("b") < shares.count_given_tokens("a")


def test_who_comes_back_goes_before_the_others_for_a_short_while() -> None:
    shares = Shares()
    shares.note_tenants(["a", "b"])
    for tenant in ("a", "b"):
        shares.give(tenant, 50_000)
    shares.note_tenants(["a"])
    shares.give("a", 50_000)
    shares.note_tenants(["a", "b"])
    assert shares.count_given_tokens("a") - 2000 < shares.count_given_tokens("b") < shares.count_given_tokens("a")


def test_what_was_used_while_nobody_else_was_there_is_not_held_against_a_tenant() -> None:
    shares = Shares()
    shares.note_tenants(["a"])
    shares.give("a", 1_000_000)
    shares.note_tenants(["b"])
    shares.give("b", 100)
    shares.note_tenants(["a", "b"])
    assert shares.count_given_tokens("a") <= shares.count_given_tokens("b")


def test_tenants_are_forgotten() -> None:
    shares = Shares()
    for number in range(10_000):
        shares.note_tenants([str(number), "stays"])
        shares.give(str(number), 1)
    assert len(shares._given_tokens) < 5000
