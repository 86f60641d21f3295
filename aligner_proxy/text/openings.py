"""Removal of connectives: words such as "However," with which a sentence refers to the sentence before it.

If all sentences before are removed, the connective is removed, too. Behind a sentence that stays it may still make
sense, so it stays.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence

from aligner_proxy.text.structure import Segment

_CONNECTIVES_WITH_COMMA = (
    "however|nevertheless|nonetheless|that said|that being said|having said that|even so|still|yet|anyway|regardless|"
    "on the other hand|by contrast|in contrast|moreover|furthermore|additionally|in addition|besides|also|likewise|"
    "similarly|therefore|thus|hence|consequently|as a result|"
    "trotzdem|dennoch|jedoch|allerdings|abgesehen davon|au\u00dferdem|zudem|"
    "cependant|toutefois|n\u00e9anmoins|pourtant|en revanche|de plus|par ailleurs|"
    "sin embargo|no obstante|aun as\u00ed|adem\u00e1s|por lo tanto|por otro lado|por otra parte|"
    "tuttavia|per\u00f2|ciononostante|inoltre|d'altra parte|pertanto|"
    "no entanto|contudo|todavia|por\u00e9m|al\u00e9m disso|por outro lado|portanto|"
    "desondanks|niettemin|daarentegen|bovendien|daarnaast|"
    "jednak|mimo to|ponadto|poza tym|z drugiej strony|"
    "\u043e\u0434\u043d\u0430\u043a\u043e|\u0442\u0435\u043c \u043d\u0435 \u043c\u0435\u043d\u0435\u0435|"
    "\u043a\u0440\u043e\u043c\u0435 \u0442\u043e\u0433\u043e|"
    "\u0441 \u0434\u0440\u0443\u0433\u043e\u0439 \u0441\u0442\u043e\u0440\u043e\u043d\u044b"
)
"""Without other words, such as "Otherwise," or "Instead,", the sentence would say something else."""
_CONNECTIVES_WITHOUT_COMMA = (
    r"but|and|aber|und|mais|et(?! al\b)|pero|mas|maar|\u043d\u043e|y(?![ \t]+(?-i:[A-Z])|[ \t]+ax[ei]s\b)"
)
"""The Spanish "y" is left out where it may be the letter of an axis or a part of a name."""
_WIDE_CONNECTIVES = (
    "\u4f46\u662f|\u7136\u800c|\u4e0d\u8fc7|\u6b64\u5916|\u53e6\u5916|\u53e6\u4e00\u65b9\u9762|\u56e0\u6b64|"
    "\u3057\u304b\u3057|\u307e\u305f|\u3055\u3089\u306b|\u305f\u3060\u3057|\u4e00\u65b9"
)
"""Chinese and Japanese ones, which a full-width comma follows."""
_CONNECTIVE = re.compile(
    rf"(?P<space>\s*)(?:(?:{_CONNECTIVES_WITH_COMMA})[,:][ \t]+|(?:{_CONNECTIVES_WITHOUT_COMMA}),?[ \t]+)"
    r"(?=[^\W\d_])"
    rf"|(?P<wide_space>\s*)(?:{_WIDE_CONNECTIVES})[\uff0c\u3001]",
    re.IGNORECASE,
)
_FIRST_WORD = re.compile(r"[^\W\d_][\w'\u2019-]*")
_ALSO = re.compile(
    r"(?P<before>\s*(?:it|you|we|they|there|this|i|one)"
    r"(?: (?:can|could|should|may|might|must|will|would|is|are|has|have))?(?= also )"
    r"|\s*(?:sie|du|wir|man|ihr) (?:kann|k\u00f6nn|soll|m\u00fcss|muss|d\u00fcrf|darf)[a-z]{0,4}"
    r"(?: (?:sich|uns|mich|ihn|es|das))?(?= auch )|\s*(?:vous|on|nous|tu) (?:pouvez|peut|pouvons|peux|devez|devriez)"
    r"(?= (?:aussi|\u00e9galement) )) \w+(?= \w)",
    re.IGNORECASE,
)
"""Matches the beginning of a sentence up to its "also": "You can also"."""
_HEADING = re.compile(r"[ \t]{0,3}#{1,6}[ \t]")


def drop_connective(text: str) -> str:
    """The text without a connective at its beginning: "However, it rains." becomes "It rains.".

    An "also" near its beginning goes, too: "You can also wait." becomes "You can wait.".
    """
    also = _ALSO.match(text)
    if also is not None:
        return also["before"] + text[also.end() :]
    match = _CONNECTIVE.match(text)
    if match is None:
        return text
    if match["wide_space"] is not None:
        return match["wide_space"] + text[match.end() :]
    return match["space"] + capitalise(text[match.end() :])


def capitalise(text: str) -> str:
    """The text with a capital at its beginning; a name such as "iPhone" keeps its letters."""
    first_word = _FIRST_WORD.match(text)
    is_name = first_word is None or not first_word.group().islower()
    return text if is_name else text[:1].upper() + text[1:]


def drop_orphaned_connective(pieces: Sequence[Segment], removed: Collection[int], text: str) -> str:
    """The edited answer `text`, without connectives to removed sentences at its beginning and below its headings.

    `pieces` are the segments of the original answer, and `removed` the indexes of those that are gone. What was changed
    otherwise stays as it is.
    """
    position = 0
    for heading, sentence in _find_orphans(pieces, removed):
        # a heading that occurs twice may be found too early; then the sentence is not right below it
        heading_start = text.find(heading, position)
        start = heading_start + len(heading)
        start += len(text[start:]) - len(text[start:].lstrip())
        if heading_start >= 0 and text.startswith(sentence, start):
            text = text[:start] + drop_connective(sentence) + text[start + len(sentence) :]
            position = start
    return text


def _find_orphans(pieces: Sequence[Segment], removed: Collection[int]) -> Iterator[tuple[str, str]]:
    """Yield (heading, sentence) for each first sentence that remains below a heading and lost all sentences before it.

    At the beginning of the answer, the heading is empty.
    """
    heading: str | None = ""
    has_lost_sentence = False
    for index, piece in enumerate(pieces):
        sentence = piece.text.strip()
        if not sentence:
            continue
        if index in removed:
            has_lost_sentence = True
        elif _HEADING.match(piece.text):
            heading = sentence
            has_lost_sentence = False
        else:
            if heading is not None and has_lost_sentence:
                yield heading, sentence
            heading = None
