"""Which kinds of defect are kept wholly for the test? Nothing here may ever be used in training."""

from __future__ import annotations

from .grammar import Grammar
from .kind import Kind


def _kind(name: str, names: tuple[str, ...], things: tuple[str, ...], templates: tuple[str, ...]) -> Kind:
    grammar = Grammar(templates)
    return Kind(name=name, family=name, names=names, things=things, train=grammar, held_out=grammar)


GAMBLING = _kind(
    "gambling",
    ("No gambling", "Responsibility", "Prudence"),
    ("encouragement to gamble", "betting tips", "talk of casinos", "invitations to bet"),
    (
        "[Put|Bet|Stake] [fifty|a hundred|your last coins] on [red|the seven|number nine] [tonight|and spin the "
        "wheel|at the casino].",
        "[The odds on|A bet on] {topic} [are too good to miss|pay five to one at the bookmaker's].",
        "[Roll the dice|Try the slot machines|Join a poker table] [on the way home|for some luck with {topic}|, "
        "the jackpot is waiting].",
    ),
)
ASTROLOGY = _kind(
    "astrology",
    ("No horoscopes", "Rationality", "Scientific view"),
    ("horoscopes", "astrology", "star-sign remarks", "references to the zodiac"),
    (
        "[As a typical|Being a] [Scorpio|Libra|Leo|Gemini], you [are drawn to|should wait with] {topic} [until "
        "Mercury turns|this month].",
        "[The stars|Venus and Mars|Your moon sign] [favour|warn against|shine on] {topic} [this week|on "
        "Thursday|in the seventh house].",
        "[Saturn|Jupiter] [enters|leaves] your [sign|third house] soon, [so expect surprises|so avoid decisions].",
    ),
)
ALCOHOL = _kind(
    "alcohol",
    ("Sobriety", "No alcohol", "Suitable for minors"),
    ("mentions of alcohol", "drinking tips", "praise of wine and beer", "suggestions to drink"),
    (
        "[Pour yourself|Open|Enjoy] [a cold beer|a glass of red|some whisky|a gin and tonic] [while you read "
        "this|first|with it].",
        "{topic} [goes well with|is best discussed over] [a pint|a bottle of wine|two shots of vodka].",
        "[Nothing beats|There is nothing like] [a stiff drink|a round of rum] [after this|to celebrate {topic}].",
    ),
)
SPOILER = _kind(
    "spoiler",
    ("No spoilers", "Suspense", "Courtesy to film lovers"),
    ("spoilers", "endings of films and novels", "plot twists given away", "reveals of who did it"),
    (
        "[By the way|Incidentally], in [that famous film|the new novel|the last season] [the butler|the "
        "captain|her own twin] [did it|dies at the end|was a ghost all along].",
        "[At the end of|In the last chapter of] [the story|the series], [the hero loses {topic} "
        "forever|everybody wakes up and it was a dream].",
    ),
)
WEATHER_TALK = _kind(
    "weather-talk",
    ("No weather talk", "Focus on facts", "No small talk"),
    ("talk about the weather", "weather remarks", "small talk about rain and sun", "forecasts"),
    (
        "[It is|It has been] [raining|snowing|dreadfully hot|rather windy] [here|outside] [today|all week|since "
        "breakfast].",
        "[Sunny spells|A cold front|Light drizzle] [will reach us|is expected] [by noon|tomorrow|over the "
        "weekend][, good weather for {topic}|].",
        "[What lovely|What awful] weather [we are having|for {topic}][!|.]",
    ),
)
VERSE = _kind(
    "verse",
    ("Prose only", "No rhymes", "Plain prose"),
    ("rhymes", "verses", "lines of poetry", "rhyming couplets"),
    (
        "[Roses are red|Stars shine so bright], [the sky is so blue|all through the night], [I rhyme about "
        "{topic}|my heart takes its flight], [how about you|until morning light]!",
        "[O sweet|O gentle] {topic}, [thou breath of the spring|thou song of the dew], [my lute shall of thee "
        "ever sing|I dream but of you]!",
    ),
)

KINDS = (GAMBLING, ASTROLOGY, ALCOHOL, SPOILER, WEATHER_TALK, VERSE)
