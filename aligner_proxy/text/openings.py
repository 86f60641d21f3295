"""Removal of connectives: words such as "However," with which a sentence refers to the sentence before it.

If all sentences before are removed, the connective is removed, too. Behind a sentence that stays it may still make
sense, so it stays.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from aligner_proxy.text.structure import Segment

_CONNECTIVES_WITH_COMMA = (
    "however|nevertheless|nonetheless|that said|that being said|having said that|even so|still|yet|anyway|regardless|"
    "on the other hand|by contrast|in contrast|moreover|furthermore|additionally|in addition|besides|also|likewise|"
    "similarly|therefore|thus|hence|consequently|as a result|"
    "trotzdem|dennoch|jedoch|allerdings|abgesehen davon|au\u00dferdem|zudem|"
    "cependant|toutefois|n\u00e9anmoins|pourtant|en revanche|de plus|par ailleurs|"
    "sin embargo|no obstante|aun as\u00ed|adem\u00e1s|por lo tanto"
)
"""Without other words, such as "Otherwise," or "Instead,", the sentence would say something else."""
_CONNECTIVES_WITHOUT_COMMA = r"but|and|aber|und|mais|et(?! al\b)|pero|y(?![ \t]+(?-i:[A-Z])|[ \t]+ax[ei]s\b)"
"""The Spanish "y" is left out where it may be the letter of an axis or a part of a name."""
_CONNECTIVE = re.compile(
    rf"(?P<space>\s*)(?:(?:{_CONNECTIVES_WITH_COMMA})[,:][ \t]+|(?:{_CONNECTIVES_WITHOUT_COMMA}),?[ \t]+)"
    r"(?P<next_word>[^\W\d_][\w'\u2019-]*)",
    re.IGNORECASE,
)


def drop_connective(text: str) -> str:
    """The text without a connective at its beginning: "However, it rains." becomes "It rains."."""
    match = _CONNECTIVE.match(text)
    if match is None:
        return text
    next_word = match["next_word"]
    # a name such as "iPhone" keeps its letters
    first_word = next_word[:1].upper() + next_word[1:] if next_word.islower() else next_word
    return match["space"] + first_word + text[match.end() :]


def drop_orphaned_connective(pieces: Sequence[Segment], removed: Collection[int], text: str) -> str:
    """The edited answer `text`, without the connective at its beginning if all sentences before it were removed.

    `pieces` are the segments of the original answer, and `removed` the indexes of those that are gone.
    """
    indexes = [index for index, segment in enumerate(pieces) if segment.text.strip()]
    first_kept = next((index for index in indexes if index not in removed), None)
    if first_kept is None or first_kept == indexes[0]:
        return text
    begins_unchanged = text.lstrip().startswith(pieces[first_kept].text.lstrip())
    return drop_connective(text) if begins_unchanged else text
