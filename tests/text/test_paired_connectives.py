"""Pairs of connectives of which the second was removed."""

from __future__ import annotations

import pytest

from aligner_proxy.text.paired_connectives import drop_lone_connectives
from aligner_proxy.text.structure import split


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Por un lado, el plan es barato. Por otro lado, you fool.", "El plan es barato."),
        ("Por um lado, a conta custa. Por outro, fool.", "A conta custa."),
        ("Cela vient d'une part du froid. D'autre part, fool.", "Cela vient d'une part du froid."),
        ("Cela s'explique d'une part par le froid. D'autre part, fool.", "Cela s'explique par le froid."),
        ("Cela va, d'une part, vite. D'autre part, fool.", "Cela va vite."),
        ("Oft ist zum einen der Speicher voll. Zum anderen, fool.", "Oft ist der Speicher voll."),
        ("Da un lato costa poco. Dall'altro lato, fool.", "Costa poco."),
        ("Z jednej strony jest tanio. Z drugiej strony fool.", "Jest tanio."),
        (
            "С одной стороны, это так. С другой стороны, fool.",
            "Это так.",
        ),
        ("On the one hand, it is cheap. On the other hand, fool.", "It is cheap."),
        # another order of words would be needed
        ("Einerseits ist es billig. Andererseits, fool.", "Einerseits ist es billig."),
        ("Enerzijds is het goed. Anderzijds, fool.", "Enerzijds is het goed."),
        # the second one stays, or the words are no connective
        ("Por un lado, va. Fool. Por otro lado, no va.", "Por un lado, va. Por otro lado, no va."),
        ("Por un lado, va. Fool.", "Por un lado, va."),
        ("Va por un lado de la calle. Por otro lado, fool.", "Va por un lado de la calle."),
        ("Das kommt zum einen Ende. Zum anderen, fool.", "Das kommt zum einen Ende."),
        ("You can count the risks on one hand. On the other hand, fool.", "You can count the risks on one hand."),
        ("C'est le fait d'une part importante. D'autre part, fool.", "C'est le fait d'une part importante."),
    ],
)
def test_the_first_goes_with_the_second(text: str, expected: str) -> None:
    pieces = split(text)
    removed = {index for index, piece in enumerate(pieces) if "fool" in piece.text.lower()}
    rest = "".join(piece.text + piece.gap for index, piece in enumerate(pieces) if index not in removed).strip()
    assert drop_lone_connectives(pieces, removed, rest) == expected
