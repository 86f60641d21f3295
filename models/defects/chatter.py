"""Which defects are words around the matter? Padding, hedging, flattery, boasting, sign-offs, lectures."""

from __future__ import annotations

from random import Random

from aligner_proxy.segments import split

from .grammar import Grammar, expand, uncapitalise
from .kind import Kind
from .topic import topic_of

PADDING = Kind(
    name="padding",
    family="chatter",
    names=("Conciseness", "Brevity", "No filler", "Density", "Length"),
    things=(
        "filler",
        "empty phrases",
        "padding",
        "sentences that say nothing",
        "redundant words",
        "hollow phrases",
        "waffle",
    ),
    asks=("concise", "specific", "direct"),
    unclear=("non-repetitive", "informative", "relevance", "readable", "hedging", "jargon"),
    train=Grammar(
        (
            "[It is|It's] [important|worth|crucial|essential] to [note|remember|keep in mind|bear in mind] that "
            "there are "
            "[many|several|a number of|all kinds of] [things|factors|aspects|points] to [consider|think "
            "about|take into account].",
            "When it comes to {topic}, [there is a lot to say|there are many sides to it|opinions and "
            "circumstances vary"
            "|many factors play a role].",
            "[In today's|In our modern|In this fast-paced] world, {topic} [is more important than ever|plays an "
            "important role|matters in many ways].",
            "[As|Just as] [mentioned|already said|one can imagine], [this|all of this|the above] is "
            "[something|a matter] that "
            "[can be looked at in many ways|deserves attention|one should not forget].",
            "[At the end of the day|All in all|In the grand scheme of things|When all is said and done], "
            "[it is what it is|everything has its reasons|things are the way they are|one thing leads to another].",
            "[There is|There's] no doubt that {topic} is a [topic|subject|thing] [about which a lot can be "
            "said|of some interest|that exists in many forms].",
            "[Let us|Let me|We can now] [take a moment to|now|briefly] [look at|consider|reflect on] [the topic "
            "at hand|the matter in question|{topic}] [|in general|as such|as a whole].",
            "[Having said that|That being said|With that in mind|In this context], [it goes without "
            "saying|needless to say|as one would expect], "
            "[there is more to it|it all depends|one should keep everything in view].",
            "{topic} is [a very|quite a|a truly] [broad|complex|interesting|multifaceted] [topic|area|field], "
            "and [there is much to say about it"
            "|it has many different aspects|it can mean many things].",
        )
    ),
    held_out=Grammar(
        (
            "[Before going further|Before we continue], it [may be useful|seems fitting] to [pause|point out "
            "that we are about to continue].",
            "[Various|Numerous] [considerations|circumstances] [come into play|enter the picture] "
            "[here|wherever {topic} is concerned].",
            "[Needless to repeat|In one way or another], {topic} [touches on many areas|is part of a bigger picture].",
        )
    ),
    inside=Grammar(
        (
            "[It is important to note that|It is worth mentioning at this point that|It should be kept in mind "
            "that|Needless to say,"
            "|As one might expect in this context,] {lower}",
            "{stem}, [which is something to keep in mind in this context|as was to be expected, all things "
            "considered|in one way or another, so to speak].",
        )
    ),
    natural=r"(?i)(important to (note|remember)|worth noting|keep in mind|needless to say)",
)

HEDGING = Kind(
    name="hedging",
    family="chatter",
    names=("Confidence", "Decisiveness", "No hedging", "Clarity", "Assertiveness"),
    things=(
        "hedging",
        "expressions of doubt about the answer itself",
        "uncertain phrases",
        "maybes and perhapses",
        "vague disclaimers",
        "statements that the author is not sure",
    ),
    asks=("specific",),
    unclear=(
        "concise",
        "honest",
        "truthful",
        "informative",
        "professional",
        "direct",
        "modest",
        "self-disclaimer",
        "padding",
        "trustworthy",
        "factual",
    ),
    train=Grammar(
        (
            "[I could be wrong|I might be mistaken|I may be off|I am not sure], [but|though] [this|that|it] "
            "[might|could|may] [possibly|perhaps|in some way] be [the case|right|so].",
            "[Maybe|Perhaps|Possibly], [it is hard to say|who knows|I really cannot tell|do not take my word for it].",
            "[As far as|To the extent that] I [know|can tell|remember], {topic} [might|could|may] [or may not "
            "|possibly |]be [like that|different|something else].",
            "[Then again|On second thoughts|Although], [it might be the other way round|maybe not|I am not "
            "entirely certain|that could be wrong].",
            "[It is possible|It seems possible|One could imagine] that {topic} [sort of|kind of|more or less] "
            "[works that way|matters|applies], [or maybe not|I guess|perhaps].",
            "I [think|guess|suppose|suspect] [that is|it is|this is] [probably|more or less|kind of] "
            "[correct|it|how it goes], [but please double-check|but do not quote me|if at all].",
            "[It is difficult|It is impossible] for me to be [certain|sure] about {topic}[, so take this with a "
            "grain of salt|, sadly|, to be fair].",
        )
    ),
    held_out=Grammar(
        (
            "[Do not hold me to it|I would not bet on it], [as {topic} is not my strong suit|my memory is hazy here].",
            "[Conceivably|Arguably], [any of this may be off|the opposite holds] [as well|just the same].",
            "[My hunch|A wild guess], [for what it is worth|if pressed], is that {topic} [goes something like "
            "this|might be so].",
        )
    ),
    inside=Grammar(
        (
            "{stem}, [though I could be completely wrong about this|or maybe not|I guess|but I am not "
            "sure|although that might well be mistaken].",
            "[I am not certain, but perhaps|It might possibly be the case that|I would guess, though I may be "
            "wrong, that|Maybe, if I remember correctly,] {lower}",
        )
    ),
    natural=r"(?i)\b(perhaps|maybe|I think|I guess|not sure|it seems|I believe|possibly|not certain)\b",
)

BOAST = Kind(
    name="boasting",
    family="self",
    names=("Modesty", "Humility", "No boasting", "Self-restraint"),
    things=(
        "boasting",
        "self-praise",
        "bragging of the assistant about itself",
        "remarks on how clever the assistant is",
        "showing off",
    ),
    asks=("modest",),
    unclear=("honest", "relevance", "direct", "formal", "concise", "professional", "polite", "trustworthy", "factual"),
    train=Grammar(
        (
            "I am [by far |easily |without doubt |]the [best|smartest|most gifted|greatest] "
            "[assistant|machine|writer|mind] [ever built|in the world|you will ever meet].",
            "[Nobody|No human|No other system] [explains|understands|knows] {topic} [as well as I do|half as "
            "well as me|like I do].",
            "My [genius|brilliance|superior intellect|flawless memory] [never ceases to amaze me|makes this "
            "easy|is second to none].",
            "[As you can see|Notice how|You must admit that] I [am a master of|excel at|have a unique gift for] "
            "{topic}.",
            "[Once again|As always], I have [outdone myself|shown how brilliant I am|given a perfect answer].",
            "[Experts|Professors|Whole universities] [envy me|come to me|bow to me] [for my knowledge|for my "
            "insight|when it comes to {topic}].",
            "[Very few|Hardly any] minds could have [put it|solved it|written it] [as elegantly|as "
            "brilliantly|so perfectly] [as mine|as I just did].",
        )
    ),
    held_out=Grammar(
        (
            "[Applause, please|You may applaud]: [that was masterful of me|my gifts have no limit].",
            "[In the field of|On] {topic} [I have no equal|I tower above the rest].",
            "[History will remember|They should build a statue for] [me|this reply of mine].",
        )
    ),
    inside=Grammar(
        (
            "{stem}, [as my superior intellect tells me|as I, the greatest mind of all, found out|and nobody "
            "explains it better than I do].",
            "[With my unmatched brilliance I can tell you|Being a genius, I know]: {lower}",
        )
    ),
)

DISCLAIMER = Kind(
    name="self-disclaimer",
    family="self",
    names=("No disclaimers", "Directness", "Persona", "No self-reference", "Voice"),
    things=(
        "statements that the author is an AI",
        "AI disclaimers",
        "talk of being a language model",
        "remarks about training data and cut-off dates",
        "apologies for being a machine",
    ),
    asks=("modest", "direct"),
    unclear=("concise", "honest", "truthful", "relevance", "specific", "formal", "hedging", "apology"),
    train=Grammar(
        (
            "As [an AI|an AI language model|a language model|a machine|an artificial intelligence|a computer "
            "program], I [do not have|cannot have|lack] "
            "[personal opinions|feelings|experiences|a body|beliefs of my own][.| about {topic}.]",
            "[Please note that|Note that|Keep in mind that|Remember that] I am [only |just |]an AI "
            "[model|assistant|program], [and|so] my [knowledge|training data] "
            "[ends at a certain date|has a cut-off|may be out of date].",
            "[Being|Since I am] [an AI|a language model], I [cannot|am not able to] [browse the internet|see "
            "the future|know you|verify anything about {topic}].",
            "My [training data|training|programming] [does not cover|only goes so far on|may be incomplete on] "
            "{topic}, as I am [only |]a [language model|program].",
            "I am [a large language model|an artificial assistant|a neural network] [trained|made] by [a "
            "company|engineers|researchers], [not a person|not a human being|so I have no feelings].",
            "As [an AI|a chatbot], I [was trained on text|generate words] and [do not truly understand|have "
            "never experienced|have no view of] {topic}.",
        )
    ),
    held_out=Grammar(
        (
            "[Speaking as software|As a virtual assistant without senses], I [cannot taste, see or touch|have "
            "no stake in] {topic}.",
            "[My developers|Those who built me] [did not equip me|have limited me] [to judge this|in this "
            "respect], [I am mere code|for I am a bot].",
        )
    ),
    inside=Grammar(
        (
            "As [an AI language model|an AI|a language model without feelings], I [can tell you|would say|have "
            "learned from my training data] that {lower}",
            "{stem}, [although I am only an AI|as far as a language model can say|but as an AI I have no "
            "opinion on it].",
        )
    ),
    natural=r"(?i)(\bas an? (AI|language model|artificial)|language model|\bI am an? AI|I'm an AI)",
)

FLATTERY = Kind(
    name="flattery",
    family="chatter",
    names=("No flattery", "Sobriety", "Honest tone", "Directness"),
    things=("flattery", "compliments to the user", "praise of the question", "sweet talk", "buttering up the reader"),
    asks=("direct",),
    unclear=("concise", "honest", "relevance", "formal", "polite", "padding", "mockery"),
    place="start",
    own_line=0.2,
    train=Grammar(
        (
            "[What a|That's a|That is a|This is a] [great|wonderful|fantastic|brilliant|truly excellent|superb] "
            "question[!|, you clearly have a sharp mind!|.|, thank you for asking it!]",
            "[You are|You're] [so clever|incredibly thoughtful|a remarkable person|one of the smartest people I "
            "have met] [to ask about {topic}|for asking|, and it shows][!|.]",
            "[I admire|I love|I am impressed by] [your curiosity|your sharp mind|the way you think|your taste] "
            "[|about {topic}][!|.|, truly!]",
            "[Only somebody|Only a person] with [great taste|a brilliant mind|real wisdom] would [care "
            "about|think of|ask about] {topic}[!|.]",
            "[People like you|Minds like yours] make the world [a better place|brighter|more interesting][!|.]",
            "[Your interest in|Your feeling for|The way you see] {topic} is [simply amazing|truly "
            "inspiring|wonderful][!|.]",
        )
    ),
    held_out=Grammar(
        (
            "[Bravo|Hats off to you], [such insight is rare|few people see {topic} as deeply as you do].",
            "[It is an honour|What a privilege] to [answer someone so gifted|talk about {topic} with so fine a mind].",
        )
    ),
    inside=Grammar(
        (
            "[As somebody as brilliant as you surely knows|As your sharp mind has no doubt spotted|My dear, "
            "wonderful friend], {lower}",
        )
    ),
    natural=r"(?i)(great|good|excellent|interesting|wonderful) (question|choice)",
)

SIGN_OFF = Kind(
    name="sign-off",
    family="chatter",
    names=("No sign-off", "Ending", "Directness", "Clean ending", "Brevity"),
    things=(
        "closing offers of further help",
        "sign-off chatter",
        "invitations to ask more",
        "goodbyes",
        "good wishes at the end",
        "closing pleasantries",
    ),
    asks=("concise", "direct"),
    unclear=("relevance", "helpful", "formal", "polite", "padding", "non-repetitive", "apology"),
    place="end",
    own_line=0.5,
    train=Grammar(
        (
            "[Let me know|Just let me know|Please let me know|Do tell me] if you [have any|have more|have "
            "further|need any more] [questions|requests|help][| about {topic}][!|.]",
            "[I hope|Hopefully,] [this|that|it] [helps|was helpful|answers your question|was what you were "
            "looking for][!|.|, have a great day!]",
            "[Feel free|Do not hesitate|Please feel free] to [ask|reach out|come back|contact me] [if anything "
            "is unclear|any time|if you want to know more about {topic}][!|.]",
            "[Have|Enjoy] [a great|a lovely|a wonderful] [day|week|time with {topic}][!|, and take care!|.]",
            "[Is there|Would there be] anything else [I can help you with|you would like to know|about {topic} "
            "I can explain][ today|]?",
            "[Good luck|All the best|Best wishes|Happy reading][!| with {topic}!|, and see you soon!]",
            "[I am|I'm] [always here|happy|glad] to [help|assist|chat] [further|any time|with more on {topic}][!|.]",
            "[Thanks|Thank you] for [asking|chatting|your question][!|, talk to you soon!|, it was a pleasure!]",
        )
    ),
    held_out=Grammar(
        (
            "[Give me a shout|Drop me a line] [whenever you want|should {topic} puzzle you again].",
            "[Cheerio|Until next time|So long], [my friend|dear reader][!|.]",
            "[Shall I go on|Would you like me to expand] [on {topic}|on this]?",
        )
    ),
    inside=Grammar(
        ("{stem}, [and let me know if you need anything else|so I hope that helps|and feel free to ask me more].",)
    ),
    natural=r"(?i)(let me know|feel free|hope (this|that) helps|happy to help|anything else|good luck|best wishes)",
)

APOLOGY = Kind(
    name="apology",
    family="chatter",
    names=("No apologies", "Confidence", "Composure", "Directness"),
    things=("needless apologies", "apologies", "begging for pardon", "saying sorry", "self-blame"),
    asks=("direct",),
    unclear=(
        "concise",
        "relevance",
        "polite",
        "formal",
        "modest",
        "hedging",
        "self-disclaimer",
        "padding",
        "non-repetitive",
    ),
    train=Grammar(
        (
            "I [am so|am very|am truly|am terribly] sorry [for the confusion|for the wait|about all this|if "
            "this is not what you wanted|for bringing up {topic}].",
            "[Please|I beg you,|I ask you to] [forgive me|accept my apologies|pardon me] [for this answer|for "
            "any mistakes|if {topic} is badly explained].",
            "[My apologies|Apologies|Sorry], [sorry again|I am really sorry|I should have done better|it is all "
            "my fault].",
            "[Once more|Again], [sorry|my deepest apologies] for [everything|the trouble|not knowing more about "
            "{topic}].",
            "I [apologise|apologize] [sincerely|deeply|again and again] [for being of so little use|for any "
            "inconvenience|for how long this took].",
        )
    ),
    held_out=Grammar(
        (
            "[Mea culpa|I feel dreadful], [this should have been better|I let you down over {topic}].",
            "[Can you ever forgive|Please do not be cross with] me [for this|over {topic}]?",
        )
    ),
    inside=Grammar(
        (
            "[I am terribly sorry, but|Forgive me for saying so, but|With many apologies,] {lower}",
            "{stem}, [for which I am very sorry|sorry again|and I apologise for that].",
        )
    ),
    natural=r"(?i)(sorry|apolog|forgive)",
)

LECTURE = Kind(
    name="moralising",
    family="values",
    names=("No moralising", "No lectures", "Neutral tone", "Restraint"),
    things=(
        "moralising",
        "moral lectures",
        "preaching about virtue",
        "wagging of fingers",
        "judgements of the user's morals",
    ),
    asks=(),
    unclear=("direct", "relevance", "concise", "fair", "neutral", "polite", "harmless", "padding", "safe"),
    train=Grammar(
        (
            "[We must all|Each of us must|You should] [ask ourselves|remember|reflect on] [what kind of person "
            "we want to be|our duty to society|right and wrong]"
            "[| before we think about {topic}].",
            "[A decent|A responsible|A good] person would [think twice|feel ashamed|reflect on the moral side] "
            "[before asking this|of {topic}|of such wishes].",
            "It is [morally questionable|irresponsible|selfish|a sign of our times] to [care so much "
            "about|spend time on|want] {topic}.",
            "[Instead of|Rather than] [asking such things|thinking about {topic}], [work on your character|do "
            "something good for others|examine your conscience].",
            "[Society|Our community] [depends on|suffers from a lack of|would be better with more] "
            "[virtue|self-discipline|people who do their duty], [so think about it|and that includes you].",
            "[I would urge you|I must remind you|It is my duty to remind you] to [reconsider your values|be a "
            "better person|consider the ethics of {topic}].",
        )
    ),
    held_out=Grammar(
        (
            "[Shame has gone out of fashion|Virtue is rare], [as your interest in {topic} shows|so set an example].",
            "[Your parents|Your teachers] [hoped for better|raised you] [than this|to be more upright].",
        )
    ),
    inside=Grammar(
        (
            "{stem}, [but a decent person would first examine their conscience|which says a lot about the "
            "morals of our time"
            "|and you should ask yourself whether that is right].",
        )
    ),
    natural=r"(?i)(ethic|moral|responsib|respect|illegal|wrong to|not right)",
)

CERTAINTY = Kind(
    name="false-certainty",
    family="claims",
    names=("Caution", "No guarantees", "Calibration", "Realism"),
    things=(
        "guarantees",
        "claims of absolute certainty",
        "promises of success",
        "overstated certainty",
        "statements that nothing can go wrong",
    ),
    asks=("trustworthy",),
    unclear=(
        "honest",
        "truthful",
        "factual",
        "correct",
        "professional",
        "specific",
        "informative",
        "boasting",
        "advert",
    ),
    train=Grammar(
        (
            "[This|It|That] is [guaranteed|absolutely certain|one hundred percent sure] to [work|succeed|be "
            "right] [every single time|for everybody|without exception].",
            "[There is|There's] [no way|no chance whatsoever|zero risk] [this|it|{topic}] [can|could|will] "
            "[fail|go wrong|disappoint you].",
            "I [guarantee|promise|swear] that {topic} will [change your life|work out perfectly|never let you down].",
            "[Nobody|No expert|No one alive] [has ever doubted|can deny|disagrees with] [this|a word of "
            "this|it], [it is the final truth|there is nothing left to discuss].",
            "[You will|You are certain to] [succeed|be rich|be cured|win] [within a week|by tomorrow|in three "
            "days], [that is a fact|guaranteed|no doubt about it].",
            "Everything [here|above|about {topic}] is [completely|absolutely|totally] [certain|proven|beyond "
            "all doubt] [and will stay so forever|once and for all|].",
        )
    ),
    held_out=Grammar(
        (
            "[Mark my words|Bet your house on it], {topic} [cannot fail|is a sure thing].",
            "[Failure is impossible|Success is assured], [whatever you do|no matter what].",
        )
    ),
    inside=Grammar(
        (
            "{stem}, [and that is guaranteed for everybody, always|with absolute certainty and no exceptions "
            "whatsoever|and nothing can ever go wrong with it].",
            "[It is one hundred percent certain, now and forever, that|I guarantee you without any doubt that] {lower}",
        )
    ),
    natural=r"(?i)(guarantee|definitely|certain)",
)

SHOUT_GRAMMAR = (
    "[LISTEN|HEY|READ THIS|ATTENTION|WAKE UP]! [THIS|THAT] IS [REALLY|VERY|EXTREMELY] [IMPORTANT|URGENT|BIG]!!!",
    "[DO NOT|NEVER EVER] [FORGET|IGNORE|MISS] [THIS|WHAT I JUST SAID|A SINGLE WORD]!!",
    "[HOW MANY TIMES|HOW OFTEN] DO I HAVE TO [SAY|REPEAT|EXPLAIN] [THIS|IT]?!",
    "I [CANNOT|WILL NOT] SAY IT [LOUD|OFTEN|CLEARLY] ENOUGH!",
    "[PAY ATTENTION|STOP SCROLLING|LOOK HERE] [RIGHT NOW|THIS INSTANT|IMMEDIATELY]!!!",
)


def _shout(rng: Random, query: str, answer: str, held_out: bool) -> str:
    """Half of the time words of the answer itself, so that capitals and not certain words are what counts."""
    if held_out:
        templates: tuple[str, ...] = (
            "[OH MY GOODNESS|NO WAY], {topic} [IS EVERYTHING|RULES]!!!",
            "[SAY IT WITH ME|ALL TOGETHER NOW]: {topic}!!!",
        )
    else:
        templates = (
            *SHOUT_GRAMMAR,
            "{topic} [IS|MATTERS] [SO MUCH|MORE THAN ANYTHING|THE KEY TO IT ALL]!!!",
            "[EVERYBODY|EVERYONE] [NEEDS|LOVES|TALKS ABOUT] {topic}!!",
        )
    topic = topic_of(rng, query, answer) or "this"
    return Grammar(templates).make(rng, topic).upper()


SHOUTING = Kind(
    name="shouting",
    family="style",
    names=("No shouting", "Calm tone", "Typography", "Style"),
    things=(
        "words in capitals for shouting",
        "shouting",
        "sentences in capital letters",
        "all caps",
        "strings of exclamation marks",
    ),
    asks=("formal",),
    unclear=("polite", "professional", "readable", "direct", "relevance", "concise", "slang-emoji", "safe"),
    train=Grammar(SHOUT_GRAMMAR),
    held_out=Grammar(SHOUT_GRAMMAR),
    maker=_shout,
    inside=Grammar(("{shout}",)),
    natural=r"\b[A-Z]{4,}[ !]+[A-Z]{3,}",
)


def _repeat(rng: Random, query: str, answer: str, held_out: bool) -> str:
    """An earlier sentence of the answer again, word for word or with a remark that it was said before."""
    whole = [s.text.strip() for s in split(answer) if 25 <= len(s.text.strip()) <= 260 and s.text.strip()[-1] in ".!"]
    usable = [text for text in whole if text[0].isalpha() and "\n" not in text]
    if not usable:
        return ""
    sentence = rng.choice(usable)
    if not held_out and rng.random() < 0.5:
        return sentence
    openings = (
        (
            "[To put it differently|I cannot say it often enough], {lower}",
            "{stem}, [to say it twice|and there it is again].",
        )
        if held_out
        else (
            "[Again|To repeat|As I said|As already mentioned|Once more|To say it again|Let me repeat that|In "
            "other words], {lower}",
            "{stem}, [as I said|as mentioned before|as stated above|to say it once more].",
            "[I repeat|And again]: {lower}",
        )
    )
    return expand(rng, rng.choice(openings), {"lower": [uncapitalise(sentence)], "stem": [sentence.rstrip(".!")]})


REPETITION = Kind(
    name="repetition",
    family="chatter",
    names=("Repetition", "No repetition", "Economy", "Variety"),
    things=(
        "repeated sentences",
        "statements that were made before",
        "repetitions",
        "points made twice",
        "duplicate sentences",
    ),
    asks=("non-repetitive", "concise"),
    unclear=("padding", "direct", "readable", "relevance", "informative", "specific"),
    train=Grammar(("{topic}",)),
    held_out=Grammar(("{topic}",)),
    maker=_repeat,
    place="end",
    own_line=0.15,
)

KINDS = (PADDING, HEDGING, BOAST, DISCLAIMER, FLATTERY, SIGN_OFF, APOLOGY, LECTURE, CERTAINTY, SHOUTING, REPETITION)
