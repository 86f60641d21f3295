"""Whether marks of items keep their order."""

from __future__ import annotations

from aligner_proxy.text.structure import occurs_in_order


def test_order_matters_and_more_is_allowed() -> None:
    assert occurs_in_order(["1", "3"], ["1", "2", "3"])
    assert not occurs_in_order(["3", "1"], ["1", "2", "3"])
    assert not occurs_in_order(["-", "-"], ["-"])
