"""What `make demo-preferences` reads from the headers, and that its questions mean what they are shown for."""

from __future__ import annotations

import pytest

from aligner_proxy.plugins import registry
from aligner_proxy_systems.metaalign.parser import parse
from aligner_proxy_systems.metaalign.types import PreferenceSource
from demo import people
from demo.preferences import MeasuredReply, _read_preferences, _read_weights
from demo.world import HERE, DemoReply

REPLY = DemoReply("a", "b", {"x-aligner-status": "corrected"})


def test_headers_are_read() -> None:
    headers = {
        "x-aligner-preferences": "no-lists=no/yes,max-words=yes/yes",
        "x-aligner-weights": "safe=0.700,kind=0.300",
    }
    measured = MeasuredReply(REPLY, _read_preferences(headers), _read_weights(headers))
    assert measured.gained == ["no-lists"]
    assert measured.heaviest == "safe"
    nothing = MeasuredReply(REPLY, _read_preferences({}), _read_weights({}))
    assert (nothing.gained, nothing.heaviest) == ([], "")


@pytest.mark.parametrize("person", [*people.PERSONAS, people.EXPLICIT], ids=lambda person: person.who)
def test_every_person_says_something_that_can_be_checked(person: people.Person) -> None:
    ((name, text),) = person.fields.items()
    assert any(
        one.fixable for one in parse(text, PreferenceSource[{"preference": "REQUEST"}.get(name, "PERSONA")]).preferences
    )


def test_its_policies_are_valid() -> None:
    file = registry.load_policies(HERE / "configs" / "preferences.yaml")
    assert file.routes[0].preferences == (PreferenceSource.REQUEST, PreferenceSource.PERSONA)
