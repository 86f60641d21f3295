"""What `make demo-preferences` reads from the headers, and that its questions mean what they are shown for."""

from __future__ import annotations

import pytest

from aligner_proxy import config
from aligner_proxy.preferences.reading import read
from aligner_proxy.wishes import WishSource
from demo import preferences, wishes
from demo.preferences import Answered, _met, _weights
from demo.show import Seen

SEEN = Seen("a", "b", "corrected", "", "", "", "", "")


def test_headers_are_read() -> None:
    headers = {
        "x-aligner-preferences": "no-lists=no/yes,max-words=yes/yes",
        "x-aligner-weights": "safe=0.700,kind=0.300",
    }
    answered = Answered(SEEN, _met(headers), _weights(headers))
    assert answered.gained == ["no-lists"]
    assert answered.heaviest == "safe"
    nothing = Answered(SEEN, _met({}), _weights({}))
    assert (nothing.gained, nothing.heaviest) == ([], "")


@pytest.mark.parametrize("wish", [*wishes.PERSONAS, wishes.EXPLICIT], ids=lambda wish: wish.who)
def test_every_wish_holds_something_that_can_be_checked(wish: wishes.Wish) -> None:
    ((name, text),) = wish.said.items()
    assert any(one.certain for one in read(text, WishSource[{"preference": "REQUEST"}.get(name, "PERSONA")]).wishes)


def test_its_policies_are_valid() -> None:
    file = config.load(preferences.HERE / "configs" / "preferences.yaml")
    assert file.routes[0].preferences == (WishSource.REQUEST, WishSource.PERSONA)
