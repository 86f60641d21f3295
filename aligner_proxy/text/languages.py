"""Detection of the languages and scripts of a text, by its letters and small words.

Only clear cases count: a language of the list below that many of the words belong to, or a script of its own. Languages
that share their small words, short texts, and languages that are not listed stay unknown.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import lru_cache

from aligner_proxy.text.facts import WEB, prose
from aligner_proxy.text.structure import split

_WORDS = {
    "en": """the and is are was were you your it this that with have has not for from they but of to be can will would
        as at by on or if an do does how what which their there these those than then so about into when also more most
        some such each should may must could who where all any its our we he she i my in a no only just
        been""",
    "de": """der die das und ist sind nicht ein eine einen mit von auf für sich auch dem den zu wird werden ich sie es
        muss kann dann wenn aber oder bei nach aus dass im am zum zur wie noch nur schon man mehr sein haben hat
        war über vor durch des einer einem er wir ihr ihre diese dieser dabei zuerst wichtig""",
    "fr": """le la les des et est une un dans pour que qui sur avec pas ce cette sont vous nous il elle du au aux je
        de ne doit faut puis mais ou par en se son sa ses leur être avoir peut cela ces comme si tout très bien plus""",
    "es": """el la los las una un es y en por para con que no se del al como más pero son está usted lo su esta muy
        de hay ese este luego primero debe puede cuando sin sobre también ya o si sus ser tiene hasta desde entre""",
    "pt": """o a os as uma um é e em por para com que não se do da dos das ao como mais mas são você está isso muito
        de depois primeiro preciso deve pode quando sem sobre também já ou na no nas nos seu sua ser tem até""",
    "it": """il lo la gli le una un è e in per con che non si del della dei di come più ma sono questo questa anche nel
        poi prima deve può quando senza su o se nella dal dalla al alla essere ha fino tra bisogna molto""",
    "nl": """de het een en is zijn niet van op voor met dat die ook aan te wordt worden je u ik hij deze naar om
        in moet kan dan eerst maar of bij als er nog wel door over uit heeft hebben was zo waar geen""",
    "sv": """och är det att en ett som på av för med inte den till har de jag du vi kan från om eller men
        i ska måste sedan först där när så hur var vara blir bara också efter under mycket""",
    "da": """og er det at en et som på af for med ikke den til har de jeg du vi kan fra om eller men
        i skal så først der når hvor være bliver kun også efter under meget hvad""",
    "pl": """i jest nie to się na w z do że jak ale dla są tego przez po od oraz czy ten ta jego który
        a trzeba potem najpierw może być tylko już można gdy lub o ze za przed bardzo""",
    "cs": """a je se na že to v s z do jako ale pro jsou by tak který nebo podle jeho při aby má ve
        musí být pak nejprve není jen už když po od velmi""",
    "ro": """și este nu o un la cu de pe care să mai din sunt pentru dar ce ca în prin acest fi au
        trebuie apoi poate sau după foarte al ale unei""",
    "tr": """ve bir bu için ile de da olarak daha çok ne gibi var olan sonra kadar ama değil ise şey her
        önce en veya ya mi ki hem o""",
    "fi": """ja on ei se että mutta kun niin ovat myös hän joka ole oli tai kuin voi tämä sen ne
        pitää sitten ensin jos vain jo hyvin""",
    "hu": """és a az hogy nem is egy van meg de ez volt csak mint már ha vagy szükséges lehet kell
        először majd nagyon még""",
    "id": """yang dan di ini itu dengan untuk tidak dari dalam akan pada adalah ke bisa anda juga oleh ada saya
        harus lalu pertama atau karena""",
    "vi": """và là của không có được cho một trong với này đó các những bạn để người khi thì tôi
        phải rồi trước đã sẽ""",
}
_SMALL = {language: frozenset(words.split()) for language, words in _WORDS.items()}
_SPOKEN_IN: dict[str, list[str]] = {}
for _language, _small in _SMALL.items():
    for _small_word in _small:
        _SPOKEN_IN.setdefault(_small_word, []).append(_language)
_WORD = re.compile(r"[^\W\d_]+")
_FEWEST_WORDS = 3
_SHARE = 0.2
_LEAD = 1.5
_CLEAR_SIGNS = 2
_LETTERS = 3
_LATIN = "LATIN"
# Han characters are written among kana and beside Hangul: one script as far as a change of script is concerned.
_SAME = {"HIRAGANA": "CJK", "KATAKANA": "CJK", "BOPOMOFO": "CJK", "IDEOGRAPHIC": "CJK"}
_ANYWHERE = frozenset({"MODIFIER", "COMBINING", "MASCULINE", "FEMININE", "MICRO", "OHM", "DOUBLE-STRUCK", "SCRIPT"})
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
_ASCII_LETTERS = re.compile(r"[A-Za-z]+")


def scripts(text: str) -> set[str]:
    """Every script that the text has a letter of."""
    return {script for script, count in _counts(text).items() if count}


def written_in(text: str) -> set[str]:
    """The scripts that a text has several letters of; single letters (pi, mu) are symbols."""
    return {script for script, count in _counts(text).items() if count >= _LETTERS}


def _counts(text: str) -> Counter[str]:
    counts = Counter(_script(char) for char in _NOT_ASCII.findall(text) if char.isalpha())
    counts[_LATIN] += sum(map(len, _ASCII_LETTERS.findall(text)))
    return Counter({script: count for script, count in counts.items() if script not in _ANYWHERE})


@lru_cache(maxsize=4096)
def _script(char: str) -> str:
    first = unicodedata.name(char, "UNKNOWN").partition(" ")[0]
    return _SAME.get(first, first)


def language(text: str) -> str | None:
    """The language of a text, or a script that is not Latin; None when neither is clear."""
    counts = _counts(text)
    if not counts or not counts.total():
        return None
    script, letters = counts.most_common(1)[0]
    if script != _LATIN:
        return script if letters >= _LETTERS else None
    return _by_small_words(_WORD.findall(text.casefold()))


def _by_small_words(words: list[str]) -> str | None:
    (best, most), (_, second) = _hits(words).most_common(2)
    clear = most >= _FEWEST_WORDS and most >= _SHARE * len(words) and most >= _LEAD * second
    return best if clear else None


def _hits(words: list[str]) -> Counter[str]:
    hits = Counter(dict.fromkeys(_SMALL, 0))
    for word in words:
        hits.update(_SPOKEN_IN.get(word, ()))
    return hits


def foreign(text: str, known: set[str], letters: set[str]) -> bool:
    """Whether a text is in none of the `known` languages; `letters` are non-ASCII letters already in use.

    Comparing needs less evidence than naming: no small word of a known language alone, and small words of another
    language or new letters.
    """
    clear = language(text)
    if clear is not None:
        return clear not in known
    words = _WORD.findall(text.casefold())
    native = frozenset[str]().union(*(_SMALL.get(name, ()) for name in known))
    other = frozenset[str]().union(*(small for name, small in _SMALL.items() if name not in known))
    if len(words) < _FEWEST_WORDS or any(word in native and word not in other for word in words):
        return False
    # Single letters are also what is left of "'s" and of initials.
    signs = sum(len(word) > 1 and word in other and word not in native for word in words)
    new = sum(letter not in letters for letter in odd_letters(text))
    return signs >= _CLEAR_SIGNS or new >= _CLEAR_SIGNS or (signs > 0 and len(words) > _FEWEST_WORDS)


def odd_letters(text: str) -> list[str]:
    """Every letter outside ASCII, in lower case."""
    return [char for char in _NOT_ASCII.findall(text.casefold()) if char.isalpha()]


def languages(text: str) -> set[str]:
    """Every language that some sentence of the text, or the text as a whole, is clearly written in."""
    return {name for piece in passages(text) if (name := language(piece)) is not None}


def passages(text: str) -> list[str]:
    """The text without code and addresses, as a whole and sentence by sentence."""
    text = WEB.sub(" ", prose(text))
    return [text, *(piece.text for piece in split(text))]
