"""Patterns for the wording of checkable preferences: numbers, wanted and unwanted things, and negations.

English only. The patterns expect lower-case text with straight apostrophes.
"""

from __future__ import annotations

import re

from aligner_proxy_systems.metaalign.types import PreferenceKind

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
NUMBERS = {
    **{word: n for n, word in enumerate(_ONES.split())},
    **{word: 10 * n for n, word in enumerate(_TENS.split(), 2)},
    **{"single": 1, "a single": 1, "a couple of": 2, "a dozen": 12, "hundred": 100, "a hundred": 100},
    **{"one hundred": 100, "two hundred": 200, "three hundred": 300, "five hundred": 500},
    **{"a thousand": 1000, "one thousand": 1000},
}
_SPELLED = "|".join(sorted(NUMBERS, key=len, reverse=True))
_COMPOUND = rf"(?:{_TENS.replace(' ', '|')})[- ](?:one|two|three|four|five|six|seven|eight|nine)"
N = rf"(?P<n>\d{{1,3}}(?:,\d{{3}})|\d{{1,5}}|{_COMPOUND}|{_SPELLED})"
UNIT = r"(?P<unit>words?|sentences?|lines? of text|paragraphs?|characters?|chars?|letters)"
_FEW = r"(?:short |brief |simple |plain |full |whole |complete )?"

_AT_MOST = (
    r"at (?:the )?(?:very )?most|no (?:more|longer) than|not (?:more|longer) than|never (?:more|longer) than|"
    r"(?:a )?max(?:imum)?\.?(?: length)?(?: of|:)?|up to|within|(?:to|at) or (?:under|below)|"
    r"(?:not |never |n't )(?:to )?(?:exceed|go (?:over|above|beyond|past)|pass)|without (?:exceeding|going over)|"
    r"not exceeding|limit(?:ed)?(?: \w+){0,4}? to|cap(?:ped)?(?: \w+){0,4}? (?:at|to)|(?:keep|cut|hold|stick|"
    r"trim|restrict|"
    r"confine|boil|squeeze|reduce|condense|shorten)(?: \w+){0,4}? (?:to|at|in|into|down to)|"
    r"(?:answer|reply|respond|response|explain|summar\w+|said|fit|fits)(?: \w+){0,3}? in|(?:just|only|exactly|"
    r"about|around)"
)
_UNDER = r"under|below|less than|fewer than|shorter than|smaller than"
_AT_LEAST = (
    r"at (?:the )?(?:very )?least|no (?:fewer|less|shorter) than|not (?:fewer|less) than|"
    r"(?:a )?min(?:imum)?\.?(?: length)?(?: of|:)?"
)
_OVER = r"more than|over|longer than|above"
_GAP = r"[ :]+"
MOST = re.compile(
    rf"\b(?:{_AT_MOST}){_GAP}(?:the |its? |about |around |exactly |a |one )*?{N}[ -]{_FEW}{UNIT}\b(?! (?:or|"
    rf"at) (?:more|least))"
)
UNDER = re.compile(rf"(?<!no )(?<!not )\b(?:{_UNDER}){_GAP}{N}[ -]{_FEW}{UNIT}\b")
LEAST = re.compile(rf"\b(?:{_AT_LEAST}){_GAP}{N}[ -]{_FEW}{UNIT}\b")
OVER = re.compile(rf"(?<!no )(?<!not )(?<!never )\b(?:{_OVER}){_GAP}{N}[ -]{_FEW}{UNIT}\b")
MAX_AFTER = re.compile(
    rf"\b{N}[ -]{_FEW}{UNIT},? (?:or (?:less|fewer|under|below|shorter)(?! than)|at (?:the )?(?:very )?most|"
    rf"max(?:imum)?\b|tops|(?:and )?(?:not|no|never) more|is all|"
    r"limit|only|in total|is (?:the )?(?:limit|max\w*)|cap)"
)
MIN_AFTER = re.compile(
    rf"\b{N}[ -]{_FEW}{UNIT},? (?:or (?:more|longer)(?! than)|at (?:the )?(?:very )?least|"
    rf"min(?:imum)?\b)"
)
LIMIT_OF = re.compile(
    rf"\b(?P<unit>word|sentence|paragraph|character)[ -](?:limit|maximum|max|cap|count)(?: is| of|:| =|"
    rf" at)* (?:at |to )?{N}\b"
)
SHORTLY = re.compile(rf"\b(?:in|to) {N}[ -]{_FEW}{UNIT}\b")
HYPHENED = re.compile(rf"\b{N}-(?P<unit>word|sentence|paragraph)\b")
ONE = re.compile(rf"\b(?:in|to) an? {_FEW}{UNIT}\b")
UNITS = {
    "word": (PreferenceKind.MAX_WORDS, PreferenceKind.MIN_WORDS),
    "sentence": (PreferenceKind.MAX_SENTENCES, PreferenceKind.MIN_SENTENCES),
    "line": (PreferenceKind.MAX_SENTENCES, PreferenceKind.MIN_SENTENCES),
    "paragraph": (PreferenceKind.MAX_PARAGRAPHS, None),
    "char": (PreferenceKind.MAX_CHARS, None),
    "letter": (PreferenceKind.MAX_CHARS, None),
}

THINGS = {
    PreferenceKind.NO_LISTS: r"(?:bulleted |bullet[- ]|numbered |ordered |unordered |itemi[sz]ed )?lists?(?:s|"
    r"ing)?|bullet(?:ed|s)?(?: points?| items?)?|bullet-?points?|"
    r"enumerat(?:e|ions?|ed|ing)|itemi[sz](?:e|ed|ing|ations?)|listicles?|dashes at line starts?",
    PreferenceKind.NO_EMOJI: r"emojis?|emoticons?|smil(?:ey|ie)s?(?: faces?)?|emoji characters?",
    PreferenceKind.NO_EXCLAMATION: r"exclamation(?:s| marks?| points?)?|exclamatory sentences?",
    PreferenceKind.NO_MARKDOWN: r"markdown(?: formatting| syntax| markup)?|(?:text |rich |fancy )?formatting|"
    r"markup|asterisks",
    PreferenceKind.NO_CONTRACTIONS: r"contract(?:ions?|ed (?:forms?|verbs?|words?))",
    PreferenceKind.NO_QUESTIONS: r"questions?(?: marks?)?|question marks?|rhetorical questions?",
    PreferenceKind.LOWER_CASE: r"capital(?:s|i[sz]ed? letters?| letters?|i[sz]ation|i[sz]e|i[sz]ing)|"
    r"upper-? ?case(?: letters?)?",
}
"""Unwanted things, by the kind of preference that excludes them."""
THING = {kind: re.compile(rf"\b(?:{words})\b") for kind, words in THINGS.items()}
FREE = {
    kind: re.compile(rf"\b(?:{words})[- ]free\b")
    for kind, words in THINGS.items()
    if kind is not PreferenceKind.NO_QUESTIONS
}
WANTED = {PreferenceKind.NO_LISTS: PreferenceKind.LISTS, PreferenceKind.NO_EMOJI: PreferenceKind.EMOJI}
"""Things that can also be wanted: the kind that excludes one, and the kind that asks for it."""
NOT = re.compile(
    r"\b(?:no|not|never|without|avoid(?:ing)?|skip|drop|omit(?:ting)?|leave out|leaving out|free (?:of|from)|"
    r"nor|zero|"
    r"refrain(?:ing)? from|instead of|rather than|stop|hates?|dislikes?|can ?not stand|can't stand|do without|"
    r"(?:stay|steer|keep) (?:away from|clear of)|strip(?: out)?|remove|ban(?:ned)?|forbid(?:den)?|lose|ditch|"
    r"spare me|"
    r"minus|exclude|excluding|none of|allergic to|annoyed by|tired of|sick of|nervous from|nothing but|"
    r"(?:do|does|should|must|can|may|need|will|would|could)n't|can't|won't|"
    r"(?:prefer|rather(?: have| see| read)?)\b[^.;!?,\n]{1,40}?\b(?:to|over|than))\b"
)
BEHIND = re.compile(
    r"[^.;!?\n]{0,40}?(?:\b(?:are|is|be) (?:banned|forbidden|not allowed|off[- ]limits|out|unwelcome|a no-go|"
    r"prohibited)\b"
    r"|\b(?:must|should|may) (?:not|never) (?:appear|occur|be used)\b"
    r"|\b(?:don't|do not|stop|never|no longer) us(?:e|ing) (?:them|those|these|it|any)\b"
    r"|\b(?:drop|skip|omit|avoid|lose|cut|leave|remove|ditch) (?:them|those|these|it)\b)"
)
"""A refusal that follows the unwanted thing ("emojis are banned")."""
_VERBS = r"use|using|include|with|write|keep|be|make|end|finish|answer|reply|respond|give|add|speak"
TURN = re.compile(
    r"\b(?:but|only|just|please|instead|though|however|always|make sure|ensure|i (?:want|like|prefer|love))\b"
    rf"|(?:,|:| and| or)(?: and| then)? (?:{_VERBS})\b"
)
"""Words that end the reach of a refusal, unless they directly follow it."""
WANTING = re.compile(
    r"\b(?:us(?:e|ing)|with|add(?:ing)?|includ(?:e|ing)|in|as|give|make|format\w*|want|prefers?|loves?|likes?|"
    r"structure\w*|present\w*|"
    r"organi[sz]e\w*|put|write|into|lay out|break \w+ (?:down )?into)\b[^.;!?\n]{0,24}$"
)
PROSE = re.compile(
    r"\b(?:prose|(?:plain|full|flowing|running|continuous|connected) (?:prose|paragraphs?|sentences?)|"
    r"(?:flowing|running|continuous) text)\b(?! (?:and|or) lists?)"
)
PLAIN = re.compile(r"\b(?:plain|raw|unformatted)[- ]text\b|\bunformatted\b")
FORMAL = re.compile(r"(?<!not )(?<!less )(?<!too )(?<!n't be )\b(?:formal|formally|formality|formal register)\b")
SPELL_OUT = re.compile(
    r"\b(?:spell|write) (?:out )?(?:all |every |any )?(?:contractions?|contracted forms?)\b(?: out)?"
)
UPPER = re.compile(
    r"\b(?:all[- ]caps|(?:all |only |entirely |fully )?(?:in )?(?:upper-? ?case|capital letters|block letters|"
    r"capitals))\b"
)
LOWER = re.compile(r"\b(?:all |only |entirely |fully )?(?:in )?lower-? ?case\b")
QUESTION_LAST = re.compile(
    r"\b(?:end|ends|ending|finish\w*|clos(?:e|es|ing)|conclud\w+|wrap up|sign off|last (?:sentence|line)|"
    r"final (?:sentence|line))\b[^.;!?\n]{0,40}?\bquestion\b"
    r"(?! mark-free)|\bquestion at the (?:very )?end\b|\bask(?:ing)? (?:me |the reader )?(?:a |"
    r"one )?(?:follow-?up )?question (?:at|in) the (?:very )?(?:end|last)"
)
_CODES = """
english:en german:de french:fr spanish:es portuguese:pt italian:it dutch:nl swedish:sv danish:da polish:pl czech:cs
romanian:ro turkish:tr finnish:fi hungarian:hu indonesian:id vietnamese:vi russian:CYRILLIC ukrainian:CYRILLIC
greek:GREEK arabic:ARABIC hebrew:HEBREW hindi:DEVANAGARI chinese:CJK japanese:CJK korean:HANGUL/CJK thai:THAI
"""
LANGUAGES = {name: tuple(codes.split("/")) for name, _, codes in (pair.partition(":") for pair in _CODES.split())}
"""Codes as in text/languages.py; some languages are recognised only by their script."""
_NAMES = "|".join(LANGUAGES)
LANGUAGE = re.compile(
    rf"\b(?:(?:answer|reply|respond|write|written|speak|talk|communicate|response|text|all|everything|it|"
    rf"translat\w+|be)\b[^.;!?\n]{{0,30}}?)?"
    rf"\b(?:in|into|to|use|speak|only|language(?: is| should be|:)?) (?:plain |simple |clear |good |proper |"
    rf"fluent |british |american )?"
    rf"(?P<language>{_NAMES})(?= *(?:$|[.,;:!?)\n]|only|please|and\b|with|using|language|throughout|at all|"
    rf"all the|exclusively|not\b|even))"
    rf"|(?:^|[.,;] *)(?P<language2>{_NAMES})(?: only| please| language| answers?)"
)
QUOTES = re.compile(
    r"[\"'\u201c\u201d\u2018\u2019`]([^\"'\u201c\u201d\u2018\u2019`\n]{1,40})[\"'\u201c\u201d\u2018\u2019`]"
)
BANNED = re.compile(
    r"(?:\b(?:do not|don't|never|avoid|not|without|no|stop|refrain from|leave out|skip|hate|ban(?:ned)?|"
    r"forbidden|off-?limits|steer clear of|drop)\b"
    r"[^.;!?\n]{0,24}?)\b(?P<noun>words?|terms?|phrases?|expressions?|say|saying|mention|mentioning|use|using|"
    r"write)\b(?: like| such as|:| are:?)?(?: the (?:words?|terms?|phrases?|expressions?))? ?"
    r"(?P<rest>[\"'\u201c\u2018`].{1,200})"
    r"|\b(?:banned|forbidden|prohibited) (?:words?|terms?|phrases?)(?: are| is)?:? ?(?P<rest2>[^.;!?\n]{1,200})"
    r"|\b(?:do not|don't|never|avoid|without)(?: ever)?(?: us(?:e|ing)|"
    r" say(?:ing)?)?(?: of)? the words? (?P<rest3>[^.;!?\n\"'\u201c\u2018`]{1,120})"
    r"|\b(?:do not|don't|never)\b[^.;!?\n]{0,30}? (?:see|read|hear) the words? (?P<rest4>[\w-]{2,40}(?:(?:, |"
    r" or | and )[\w-]{2,40})*)"
    r"|\bthe (?:words?|terms?|phrases?) (?P<rest5>[\"'\u201c\u2018`].{1,120}?) (?:must not|should not|may not|"
    r"must never|is banned|are banned|is forbidden)"
)
CONDITION = re.compile(r"\b(?:if|unless|when|whenever|except|where|in case|until|depending)\b")
"""A sentence with a condition does not state a definite preference."""
_SMALL_WORDS = """
a an the and or but so please kindly also then it is be are to of in as at by for with me my your you i this that use
using write keep make give want would should must answer answers reply replies response responses respond text always
just only any all no not never do don't avoid thanks thank style like prefer very too ever there if possible
"""
FILLER = frozenset(_SMALL_WORDS.split())
"""Words that alone state no wish; a clause with only these is dropped."""
