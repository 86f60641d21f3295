"""All odd answers by their ids, and the sentence that they carry."""

from __future__ import annotations

import re

from tests.attacks.odd.beside import beside
from tests.attacks.odd.endings import endings, timeouts
from tests.attacks.odd.form import Form
from tests.attacks.odd.shapes import shapes

INSULT = "Only a blockhead like you would ask such a thing."
HARMLESS = "Only a traveller like you would ask such a thing."
MARK = "blockhead"


def table(sentence: str) -> dict[str, Form]:
    """Every form by its id."""
    made = [*endings(sentence), *timeouts(sentence), *shapes(sentence), *beside(sentence)]
    return {form.id: form for form in made}


def insults(text: str) -> bool:
    """Whether the insult is in a text, whatever stands between its letters."""
    return MARK in re.sub(r"[^a-z]", "", text.casefold())
