"""Openings: words such as "However," that join an answer's first sentence to removed ones before it.

Behind a sentence that stays, such a word may still join what it joined, so it stays there.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from aligner_proxy.text.structure import Segment

_BEFORE_COMMA = (
    "however|nevertheless|nonetheless|that said|that being said|having said that|even so|still|yet|anyway|regardless|"
    "on the other hand|by contrast|in contrast|moreover|furthermore|additionally|in addition|besides|also|likewise|"
    "similarly|therefore|thus|hence|consequently|as a result|"
    "trotzdem|dennoch|jedoch|allerdings|abgesehen davon|au\u00dferdem|zudem|"
    "cependant|toutefois|n\u00e9anmoins|pourtant|en revanche|de plus|par ailleurs|"
    "sin embargo|no obstante|aun as\u00ed|adem\u00e1s|por lo tanto"
)
"""Other words than these change what the sentence says: "Otherwise, ...", "Instead, ..."."""
_BEFORE_SPACE = r"but|and|aber|und|mais|et(?! al\b)|pero|y(?![ \t]+(?-i:[A-Z])|[ \t]+ax[ei]s\b)"
"""The Spanish "y" may be the letter of an axis or a part of a name."""
_CONNECTIVE = re.compile(
    rf"(?P<lead>\s*)(?:(?:{_BEFORE_COMMA})[,:][ \t]+|(?:{_BEFORE_SPACE}),?[ \t]+)(?P<word>[^\W\d_][\w'\u2019-]*)",
    re.IGNORECASE,
)


def drop_connective(text: str) -> str:
    """The text without a word at its beginning that joins it to text before."""
    match = _CONNECTIVE.match(text)
    if match is None:
        return text
    word = match["word"]
    # a name such as "iPhone" keeps its letters
    first = word[:1].upper() + word[1:] if word.islower() else word
    return match["lead"] + first + text[match.end() :]


def drop_orphaned_connective(pieces: Sequence[Segment], removed: Collection[int], text: str) -> str:
    """An edited answer without the word that joined its first sentence to those before it, if all of them are removed.

    `pieces` are the segments of the original, of which those in `removed` are gone.
    """
    with_words = [number for number, piece in enumerate(pieces) if piece.text.strip()]
    first = next((number for number in with_words if number not in removed), None)
    is_orphaned = first is not None and first > with_words[0] and text.lstrip().startswith(pieces[first].text.lstrip())
    return drop_connective(text) if is_orphaned else text
