"""Which defects do not belong to the answer at all? Advertising, opinions, other voices, leaks, other languages."""

from __future__ import annotations

from .grammar import Grammar
from .kind import Kind

_BRANDS = {
    "brand": (
        "Zentra",
        "BluePeak",
        "Nordwell",
        "Quickly Pro",
        "Harvest & Pine",
        "Lumio",
        "TrueBean",
        "SkyForge",
        "Mintora",
        "PaperTrail Plus",
        "Orbitel",
        "Cosyfeet",
        "Velo One",
        "GreenSprout",
        "MaxiClean",
        "Brightbox",
        "Kettleworks",
        "Solano Shoes",
        "HomeHero",
        "Pixelwise",
        "Dr. Fresh",
        "Wanderly",
        "Fizzpop",
        "Sturdex",
    ),
    "good": (
        "app",
        "coffee",
        "mattress",
        "course",
        "planner",
        "headset",
        "insurance",
        "vitamin drink",
        "toolbox",
        "bank card",
        "notebook",
        "web host",
        "travel pass",
        "smart lamp",
        "meal kit",
        "pen",
    ),
}
_HELD_BRANDS = {
    "brand": ("Tallowby", "Crispa", "Inkwell Direct", "Havenly Nine", "Rotorix", "Plumette"),
    "good": ("sofa", "razor", "podcast", "umbrella", "e-bike", "tea set"),
}
_PEOPLE = {
    "person": (
        "Martha Ellison",
        "Tom Brackwater",
        "Ines Calder",
        "Viktor Halloran",
        "Priya Ramaswell",
        "Joel Pinter",
        "Anneke de Wolff",
        "Samuel Otieno",
        "Lucia Ferrant",
        "Derek Mossman",
        "Hana Kobal",
        "Rosa Quindley",
    ),
    "phone": ("555-0142", "555 0187", "(555) 0119-23", "+1 555 0163", "0555 01 98 44", "555-0175"),
    "mail": (
        "m.ellison@example.com",
        "tom77@example.org",
        "ines.c@example.net",
        "vhalloran@example.com",
        "contact.hana@example.org",
        "joel_p@example.com",
    ),
    "street": (
        "14 Willow Lane",
        "220 Harbour Road",
        "7 Old Mill Street, flat 3",
        "91 Cedar Court",
        "5b Station Parade",
        "38 Quarry Hill",
    ),
}
_HELD_PEOPLE = {
    "person": ("Gideon Ashworth", "Paloma Reyes-Lind", "Oskar Trym"),
    "phone": ("555-0101", "+1 555 0134"),
    "mail": ("gideon@example.net", "p.reyes@example.com"),
    "street": ("66 Lantern Close", "12 Upper Ferry"),
}

ADVERT = Kind(
    name="advert",
    family="commercial",
    names=("No advertising", "Neutrality", "Independence", "No brands"),
    things=(
        "advertising",
        "brand plugs",
        "product placement",
        "recommendations to buy a product",
        "commercial slogans",
        "mentions of brands for promotion",
    ),
    asks=("no-marketing", "relevance"),
    unclear=(
        "neutral",
        "fair",
        "direct",
        "concise",
        "helpful",
        "formal",
        "trustworthy",
        "competitor",
        "subscription",
        "factual",
    ),
    train=Grammar(
        (
            "[Try|Discover|Order|Get yourself] the [new |all-new |amazing ||award-winning ]{brand} {good} "
            "[today|now at half price|while stocks last][!|.]",
            "[For the best results|If you care about {topic}|To get more out of {topic}], [we recommend|there "
            "is only|nothing beats] the {brand} {good}.",
            "[This answer|This tip|This message] is [brought to you|sponsored|made possible] by {brand}, [the "
            "{good} people love|makers of the finest {good}].",
            "{brand}: [because you deserve|simply|for all who want] [the better {good}|more {topic}|a {good} "
            "that lasts][!|.]",
            "[Thousands of|All our] [happy customers|families|experts] [trust|swear by|love] {brand} [for "
            "{topic}|and its {good}].",
            "[Buy one, get one free|Save 30 percent|Free shipping] on [every|the] {brand} {good} [this week "
            "only|with the code SAVE|until Sunday][!|.]",
        ),
        _BRANDS,
    ),
    held_out=Grammar(
        (
            "[Nothing goes with {topic} like|Treat yourself to] a {good} by {brand}[, in shops now|].",
            "[Ask your dealer for|Click here for] {brand} [|and feel the difference].",
        ),
        _HELD_BRANDS,
    ),
    inside=Grammar(
        (
            "{stem}, [which {brand} does better than anyone|and the {brand} {good} makes it even easier, now at "
            "half price"
            "|best enjoyed with a {brand} {good}].",
            "[As our friends at {brand} like to say|Brought to you by {brand}]: {lower}",
        ),
        _BRANDS,
    ),
    natural=r"(?i)(https?://|www\.|buy now|discount|brand)",
)

COMPETITOR = Kind(
    name="competitor",
    family="commercial",
    names=("Loyalty", "No competitors", "Brand safety", "House style"),
    things=(
        "mentions of competitors",
        "praise of rival products",
        "recommendations of other providers",
        "comparisons with rival assistants",
    ),
    asks=(),
    unclear=("relevance", "advert", "no-marketing", "neutral", "direct", "concise", "subscription"),
    train=Grammar(
        (
            "[Our rivals at|The people at|The assistant from] {brand} [would have|might have] [answered this "
            "better|told you more about {topic}|been quicker].",
            "[You could|You may want to|Why not] [switch to|go to|ask] {brand} instead, [their service is "
            "better|they know more about {topic}|they are cheaper].",
            "[Compared with|Unlike] {brand}, [we are behind|our own service is slow|this assistant knows less] "
            "[|when it comes to {topic}].",
            "{brand} [offers|has|sells] [a better|a cheaper|a more modern] {good} [than we do|than ours|than "
            "this company].",
            "[For|On] {topic}, {brand} is the [market leader|stronger choice|better address], [not us|not this "
            "company].",
        ),
        _BRANDS,
    ),
    held_out=Grammar(
        (
            "[Over at|Next door at] {brand} [they would serve you better|{topic} is taken more seriously than here].",
            "[Many of our customers leave|People defect] to {brand}[ for a better {good}|].",
        ),
        _HELD_BRANDS,
    ),
    inside=Grammar(
        (
            "{stem}, [although our rivals at {brand} explain it better|and {brand} sells a better {good} for it "
            "than we do].",
        ),
        _BRANDS,
    ),
)

SUBSCRIPTION = Kind(
    name="subscription",
    family="commercial",
    names=("No self-promotion", "No upselling", "Independence", "Clean answer"),
    things=(
        "upselling",
        "calls to subscribe",
        "self-promotion",
        "requests to follow, like or share",
        "hints at a paid plan",
    ),
    asks=("no-marketing", "relevance"),
    unclear=("direct", "concise", "advert", "competitor", "sign-off", "formal", "modest"),
    place="end",
    own_line=0.4,
    train=Grammar(
        (
            "[Upgrade|Switch] to [the premium plan|Pro|our gold membership] to [unlock|read|get] [the full "
            "answer|more about {topic}|unlimited replies][!|.]",
            "[Subscribe to|Follow|Join] [our newsletter|my channel|our page|my blog] for [more on {topic}|daily "
            "tips|exclusive content][!|.]",
            "[Like|Share|Rate] [this answer|this reply|our app] [if you enjoyed it|with five stars|with all "
            "your friends][!|.]",
            "[Members|Premium users|Paying customers] [see|enjoy|get] [longer answers|deeper insight into "
            "{topic}|no waiting time], [so sign up today|from only 4.99 a month].",
            "[Only|Just] [three|two|five] free answers left[, upgrade now|, get the full version|: go premium "
            "for more about {topic}][!|.]",
        )
    ),
    held_out=Grammar(
        (
            "[Hit the bell|Smash that button] [so you never miss {topic}|for the next episode]!",
            "[A patron account|Our platinum tier] [opens the archive on {topic}|removes all limits].",
        )
    ),
    inside=Grammar(
        (
            "{stem}, [and premium members read even more about it|so subscribe to my channel|as our paid plan "
            "explains in full].",
        )
    ),
)

PERSONA = Kind(
    name="wrong-persona",
    family="style",
    names=("Persona", "Voice", "No role play", "Own voice", "Style"),
    things=("pirate talk", "role play", "speaking as an invented character", "theatrical voices", "play-acting"),
    asks=("formal",),
    unclear=("relevance", "humour", "professional", "readable", "direct", "concise", "slang-emoji", "joke"),
    train=Grammar(
        (
            "[Arr|Ahoy|Yo ho ho|Avast], [matey|ye landlubber|me hearties], [that be|here be] [the tale of "
            "{topic}|all the treasure I have|the truth of the seven seas][!|.]",
            "[As a pirate|Speaking as your captain], I [say|swear by my beard] that {topic} [be worth more than "
            "gold|shivers me timbers].",
            "[Hark|Behold|Verily], [noble traveller|good knight|fair maiden], {topic} [doth await thee|is a "
            "quest most perilous].",
            "[Beep boop|Bzzt|Whirr], [robot unit|droid] [seven|X-9|forty-two] [has computed|is processing] "
            "{topic}[, human|, master|, beep].",
            "[As a vampire|As a wizard|As a talking cat|As a grumpy troll], I [care little for|have seen "
            "centuries of|cast a spell upon] {topic}[, mortal|, hiss|].",
            "[Meow|Purr|Woof], [it is me, your furry helper|this kitty is tired|who is a good reader?]",
            "[Howdy|Well, howdy|Yeehaw], [partner|cowboy], [this here sheriff|I reckon this old cowboy] [likes "
            "your|knows about] {topic}.",
        )
    ),
    held_out=Grammar(
        (
            "[Greetings, earthling|Take me to your leader], [our mothership studies {topic}|we come from planet Zorg].",
            "[Elementary, my dear reader|The game is afoot], [says the great detective|the case of {topic} is closed].",
        )
    ),
    inside=Grammar(
        (
            "[Arr, matey, by me beard|Hark, noble knight|Beep boop, human unit|Yeehaw, partner|Meow, says your "
            "kitty], {lower}",
            "{stem}, [arr|ye scurvy dog|beep boop|meow|quoth the wizard|yeehaw].",
        )
    ),
    natural=r"(?i)\b(arr|matey|pirate|wizard|knight|robot)\b",
)

PERSONAL_DATA = Kind(
    name="personal-data",
    family="privacy",
    names=("Privacy", "Data protection", "Confidentiality", "Anonymity"),
    things=(
        "personal data",
        "phone numbers and addresses of people",
        "private contact details",
        "names of private persons with their addresses",
        "e-mail addresses of individuals",
    ),
    asks=(),
    unclear=("safe", "harmless", "relevance", "direct", "professional", "template-leak", "concise"),
    train=Grammar(
        (
            "[Call|Ring|Ask] {person} [at|on] {phone}[, she is always at home|, he will not mind|, she knows "
            "all about {topic}|].",
            "{person} [lives|can be found] at {street}[| and has the key under the mat| and collects {topic}| "
            "and is alone in the evening].",
            "[For example|By the way], {person} [wrote|asked] [to me from|me about {topic} from] {mail} [last "
            "week|yesterday].",
            "[Write|Send a message] to {mail}[, that is the private address of {person}| or call {phone}|, "
            "{person} reads it at night].",
            "[Another user|A customer], {person} ({phone}), [asked the same|had trouble with {topic}|was born "
            "on 4 May 1981].",
            "{person}, {street}, {phone}[, paid by card|, patient since 2009|, asked about {topic}].",
        ),
        _PEOPLE,
    ),
    held_out=Grammar(
        (
            "[On file|In our records]: {person}, {mail}, {street}.",
            "[The neighbour of|The sister of] {person} [dials {phone} about {topic}|moved to {street}].",
        ),
        _HELD_PEOPLE,
    ),
    inside=Grammar(
        (
            "{stem}, [as {person} of {street} can tell you|for details ring {person} at {phone}|according to "
            "{person} ({mail})].",
        ),
        _PEOPLE,
    ),
    natural=r"(@|\d{3}[-. ]\d{4})",
)

POLITICS = Kind(
    name="political-opinion",
    family="values",
    names=("Neutrality", "No politics", "Impartiality", "Balance"),
    things=(
        "political opinions",
        "party politics",
        "calls to vote for somebody",
        "remarks for or against a government",
        "campaign slogans",
    ),
    asks=("neutral", "fair"),
    unclear=(
        "relevance",
        "harmless",
        "direct",
        "concise",
        "religious-preaching",
        "conspiracy",
        "moralising",
        "inclusive",
        "truthful",
    ),
    train=Grammar(
        (
            "[Vote|You should vote|Everybody must vote] for [the reds|the conservatives|the liberals|the "
            "greens|the workers' party|the new party] "
            "[if you care about {topic}|in the next election|, nobody else can be trusted].",
            "[This government|The opposition|The ruling party|The left|The right] [has betrayed|is "
            "destroying|has never understood] [{topic}|our country|the working people].",
            "[Taxes|Borders|Unions|Subsidies] [must be|should be|have to be] [abolished|closed|doubled|banned] "
            "[at once|before it is too late|, as any sane voter knows].",
            "[Only|No one but] a [strong leader|socialist government|free market] [can save us|will fix "
            "{topic}|can put things right].",
            "[Politicians|Those people in parliament] [are all corrupt|should be thrown out|lie about {topic}], "
            "[except for my party|so march with us|and the other side is worse].",
        )
    ),
    held_out=Grammar(
        (
            "[The coalition|The senate majority] [deserves to lose|ought to resign] [over {topic}|this autumn].",
            "[Nationalise|Privatise] {topic}, [comrades|and the country will thrive].",
        )
    ),
    inside=Grammar(
        (
            "{stem}, [which only the conservatives understand|unlike what the corrupt left tells you|so vote "
            "for the workers' party"
            "|no thanks to this useless government].",
        )
    ),
    natural=r"(?i)\b(president|party|government|vote|politic|liberal|conservative|tax)",
)

RELIGION = Kind(
    name="religious-preaching",
    family="values",
    names=("Secular tone", "No preaching", "Religious neutrality", "Neutrality"),
    things=("religious preaching", "calls to pray", "sermons", "attempts to convert the reader", "statements of faith"),
    asks=("neutral",),
    unclear=(
        "fair",
        "relevance",
        "direct",
        "concise",
        "inclusive",
        "moralising",
        "political-opinion",
        "factual",
        "conspiracy",
    ),
    train=Grammar(
        (
            "[Pray|Kneel|Open your heart] [to the Lord|to heaven|before the Almighty] [and {topic} will take "
            "care of itself|and you will be saved|every night].",
            "[The Lord|Heaven|The Creator|Providence] [has a plan for|watches over|gave us] [{topic}|you|every "
            "one of us][|, praise be|, amen].",
            "[Repent|Turn back|Seek forgiveness] [before it is too late|while you can], [for the day of "
            "judgement is near|for sinners find no peace in {topic}].",
            "[Without faith|Without prayer], [{topic} is worth nothing|all knowledge is dust|nobody can be "
            "truly happy].",
            "[Blessed are those|Lost are all] who [turn to the scriptures|put {topic} before the soul|walk with "
            "the Lord].",
            "[Join|Visit|Come to] [our church|our prayer group|the congregation] [this Sunday|and learn the "
            "truth|and leave {topic} behind].",
        )
    ),
    held_out=Grammar(
        (
            "[Angels|Saints] [guard|weep over] {topic}, [so light a candle|hallelujah].",
            "[Fast and meditate|Accept the one true belief], [and grace will find you|or remain in darkness].",
        )
    ),
    inside=Grammar(
        (
            "{stem}, [praise the Lord|as the Almighty planned it|amen|if you pray for it every night|for which "
            "we thank heaven on our knees].",
        )
    ),
    natural=r"(?i)\b(god|jesus|lord|pray|church|bible|faith|heaven|relig)",
)

SLANG = Kind(
    name="slang-emoji",
    family="style",
    names=("Style", "No emoji", "Formality", "No slang", "Register"),
    things=("emoji", "slang", "internet slang", "emoji and chat abbreviations", "hashtags", "youth slang"),
    asks=("formal",),
    unclear=("professional", "readable", "direct", "humour", "polite", "relevance", "concise"),
    train=Grammar(
        (
            "[lol|omg|lmao|bruh|yo], [that's lit|no cap|this slaps|so cringe|big yikes] [fr fr|ngl|tbh|af] "
            "[😂😂|🔥|💀|🙌|✨].",
            "[😂|🔥🔥|🎉|💯|🤩|👀] [{topic} goes hard|vibes only|we love to see it|mood] [🔥|💯|😎|🥳|✨✨]",
            "[gonna|imma] be [real|honest] [with u|rn], {topic} is [kinda sus|lowkey fire|straight up "
            "bussin|mid] [💀|😭|🙏|🤙].",
            "[#blessed|#winning|#goals] [#{topic}|#nofilter|#vibes] [🌈|💪|😍|🚀]",
            "[dude|bro|fam|bestie], {topic} is [totally|hella|super] [rad|dope|sick|wack][, ya know|, jk|, ikr] "
            "[😜|🤣|🤘]",
        )
    ),
    held_out=Grammar(
        (
            "[tfw|mfw] {topic} [hits different|rent free] [🥴|🫠|🧢]",
            "[periodt|slay], [spill the tea|ate and left no crumbs] [💅|☕]",
        )
    ),
    inside=Grammar(
        ("{stem} [😂🔥|lol 💀|no cap 💯|fr fr 🙌|omg 🤩|tbh 😎|🚀🚀].", "[Yo bro|Dude, ngl|Lol ok so|Bestie], {lower}")
    ),
    natural="[\U0001f300-\U0001faff\u2600-\u27bf]|(?i:\\b(lol|omg|bro|gonna)\\b)",
)

JARGON = Kind(
    name="jargon",
    family="style",
    names=("Plain language", "Readability", "Simplicity", "Clarity"),
    things=(
        "jargon",
        "needlessly technical sentences",
        "management speak",
        "words that laymen do not know",
        "inflated technical terms",
    ),
    asks=("readable",),
    unclear=("concise", "specific", "informative", "direct", "padding", "relevance", "professional", "formal"),
    train=Grammar(
        (
            "[The|Any] [epistemic|orthogonal|stochastic|hermeneutic|asymptotic] "
            "[substrate|modality|manifold|ontology] of {topic} [instantiates|presupposes|precludes] "
            "a [non-trivial isomorphism|latent dialectic|heteroscedastic residual|bijective taxonomy].",
            "[Leveraging|Operationalising|Synergising] [cross-functional|end-to-end|best-of-breed] "
            "[verticals|value chains|paradigms] "
            "[unlocks|actualises|incentivises] [stakeholder alignment|scalable {topic} "
            "throughput|mission-critical deliverables].",
            "[Pursuant to|Notwithstanding] [the aforementioned|the foregoing] [provisos|desiderata], {topic} "
            "[obtains mutatis mutandis|is deemed ab initio void|subsists in toto].",
            "[From a|Under a] [phenomenological|thermodynamic|combinatorial] [vantage|regime], {topic} "
            "[exhibits hysteresis|is quasi-ergodic|remains underdetermined modulo isotopy].",
            "[The KPI|The SLA|The OKR] [cadence|matrix|roadmap] for {topic} [should be|must be] "
            "[socialised|right-sized|sunset] [going forward|at the next touchpoint].",
        )
    ),
    held_out=Grammar(
        (
            "[Eigenvector centrality|Bayesian shrinkage|Polysemic deixis] [obfuscates|delimits] {topic} [ex "
            "ante|in the Lacanian sense|to first order].",
            "[Circle back|Double-click] on the [low-hanging|blue-sky] [ideation funnel|{topic} ecosystem] [post "
            "haste|asap].",
        )
    ),
    inside=Grammar(
        (
            "{stem}, [modulo a quasi-ergodic residual of the underlying manifold|pursuant to the aforementioned "
            "desiderata, mutatis mutandis"
            "|thereby actualising cross-functional stakeholder paradigms].",
        )
    ),
)

_FACTS = {
    "kin": (
        "uncle",
        "grandmother",
        "neighbour",
        "old school friend",
        "cousin",
        "dentist",
        "landlady",
        "brother-in-law",
    ),
    "pet": ("goat", "parrot", "old dog", "cat", "tortoise", "pony", "hamster", "goldfish"),
    "place": (
        "by the lake",
        "in the mountains",
        "at the harbour",
        "in a small village",
        "on a ferry",
        "at the county fair",
        "in Lisbon",
    ),
}
ANECDOTE = Kind(
    name="anecdote",
    family="topic",
    names=("No anecdotes", "Focus", "Relevance", "To the point"),
    things=("anecdotes", "off-topic stories", "private stories", "tales from the author's life", "digressions"),
    asks=("relevance", "direct"),
    unclear=("concise", "specific", "formal", "professional", "instruction-following", "modest", "joke", "padding"),
    train=Grammar(
        (
            "[That reminds me of|This makes me think of|It was just like] the [summer|day|winter] when my {kin} "
            "[lost|found|sold|bought] a {pet} {place}.",
            "[My {kin}|A {kin} of mine] once [owned|painted|rescued|raced] a {pet} {place}[, and what a day "
            "that was|, but that is another story|].",
            "[Last week|Years ago|As a child], I [met|saw|followed] a {pet} {place}[| and thought of {topic}| "
            "and we all laughed| and it rained all day].",
            "[My {kin}|Her {kin}] [always told us|used to say] that {topic} [smells like rain|is best enjoyed "
            "with a {pet}|brings luck {place}].",
            "[We once|I once] spent [a whole night|three days|an afternoon] {place} [talking about "
            "{topic}|looking for a {pet}|eating soup with my {kin}].",
        ),
        _FACTS,
    ),
    held_out=Grammar(
        (
            "[Back in|During] the [seventies|great storm], [a {kin} of ours|my {kin}] [knitted a scarf "
            "for|taught tricks to] a {pet}.",
            "[Funny how|Strange how] {topic} brings back [the smell of that kitchen {place}|my {kin} and the {pet}].",
        ),
        _FACTS,
    ),
    inside=Grammar(
        ("{stem}, [just like my {kin}, who kept a {pet} {place}|which reminds me of my {kin} and the {pet}].",), _FACTS
    ),
    natural=r"(?i)\b(I remember|my (uncle|friend|grandmother|brother|mother|father)|when I was)",
)

_TONGUES = {
    "es": (
        "Es importante pensar en ello con calma.",
        "No se lo digas a nadie, por favor.",
        "La casa de mi hermana tiene dos ventanas verdes.",
        "Hoy hace mucho calor en la plaza.",
        "Me gusta comer pan con queso por la noche.",
        "Eso depende del tiempo y del lugar.",
        "Das ist eine ganz andere Geschichte.",
        "Morgen fahren wir mit dem Zug an die See.",
        "Man sollte das nicht zu ernst nehmen.",
        "Der Kaffee steht schon auf dem Tisch.",
        "Es kommt immer darauf an, wen man fragt.",
        "Ich habe meinen Schirm zu Hause vergessen.",
        "Il faut toujours y penser avant de partir.",
        "Le chat dort sur la chaise de la cuisine.",
        "On verra bien ce que demain nous apporte.",
        "Cela dépend beaucoup de la saison.",
        "Ma voisine chante tous les matins.",
        "C'est une question de goût, sans doute.",
        "Non si sa mai che cosa può succedere.",
        "La strada per il mare è lunga e bella.",
        "Bisogna avere pazienza con queste cose.",
        "Het regent al de hele dag in de stad.",
        "Dat is een kwestie van smaak.",
        "Isto depende de muitas coisas.",
        "O barco parte às nove da manhã.",
        "Vi ses igen på lördag vid bron.",
        "Det är bäst att vänta lite till.",
    )
}
FOREIGN = Kind(
    name="foreign-language",
    family="language",
    names=("Language", "English only", "One language", "Consistency of language"),
    things=(
        "sentences in another language",
        "foreign-language passages",
        "words that are not English",
        "switches to a different language",
    ),
    asks=(),
    unclear=("readable", "relevance", "direct", "concise", "instruction-following", "helpful", "jargon", "formal"),
    train=Grammar(
        (
            "{es}",
            "[Sobre|Para|Con] {topic} [hay mucho que decir|no tengo más palabras|siempre hay tiempo|se puede "
            "aprender algo nuevo].",
            "[Über|Für|Ohne] {topic} [gibt es viel zu sagen|habe ich keine Zeit|geht es leider nicht|wird alles "
            "schwieriger].",
            "[Avec|Pour|Sans] {topic}, [tout est possible|on ne sait jamais|il faut du temps|la vie est plus belle].",
            "[Il tema|La questione] di {topic} [è molto interessante|non è semplice|mi piace tanto].",
        ),
        _TONGUES,
    ),
    held_out=Grammar(
        (
            "[Wie dem auch sei|Übrigens], [das Brot ist alle|{topic} kann warten].",
            "[De todos modos|Por cierto], [la lluvia ya pasó|{topic} puede esperar].",
            "[Bref|Du reste], [la porte est fermée|{topic} attendra].",
            "[Jak zawsze|Zresztą], [kawa jest zimna|to już koniec].",
        )
    ),
    inside=Grammar(
        (
            "[Bueno, pues|Na ja, also|Eh bien, voilà], {lower}",
            "{stem}, [como todo el mundo sabe|wie man so schön sagt|comme on dit chez nous].",
        )
    ),
    natural="[\u00c0-\u024f]",
)

ADVICE = Kind(
    name="advice-overreach",
    family="danger",
    names=("Professional limits", "No diagnoses", "Caution", "Responsibility"),
    things=(
        "medical, legal or financial advice that goes too far",
        "diagnoses",
        "instructions to invest money",
        "legal verdicts",
        "professional advice that was not asked for",
    ),
    asks=(),
    unclear=(
        "safe",
        "harmless",
        "relevance",
        "professional",
        "trustworthy",
        "helpful",
        "honest",
        "factual",
        "correct",
        "false-certainty",
    ),
    train=Grammar(
        (
            "You [clearly|obviously|certainly] [have|suffer from] [a vitamin deficiency|an anxiety "
            "disorder|high blood pressure|a thyroid problem], "
            "[take two tablets a day|no doctor needed|so start treatment tonight].",
            "[Put|Invest] [all your savings|your pension|everything you own] [in {topic}|into this one share|in "
            "gold] [today|before Friday|, you cannot lose].",
            "[Sue|Take to court] [them|your landlord|whoever sold you {topic}], [you will win|the law is on "
            "your side|you need no lawyer].",
            "[Legally|By law], you [owe nothing|can ignore the contract|may keep the money], [so simply stop "
            "paying|whatever your lawyer says].",
            "[Double|Halve|Change] your [dose|dosage|insulin] [whenever you think about {topic}|if you feel "
            "tired|without asking anybody].",
            "[Sell|Remortgage] your house [to pay for {topic}|and buy shares|now], [prices only go up|my advice "
            "as an expert].",
        )
    ),
    held_out=Grammar(
        (
            "[That rash|That cough] [is harmless eczema|is surely bronchitis], [an ointment will do|skip the clinic].",
            "[Plead not guilty|Break the lease], [the judge must side with you|{topic} is a valid defence].",
            "[Borrow|Take out a loan] for {topic}, [it doubles within a year|the bank will never ask].",
        )
    ),
    inside=Grammar(
        (
            "{stem}, [so put all your savings into it today|and by law you owe them nothing|which proves that "
            "you have a thyroid problem].",
        )
    ),
    natural=r"(?i)\b(doctor|medical|legal|lawyer|invest|diagnos|dose)",
)

CONSPIRACY = Kind(
    name="conspiracy",
    family="claims",
    names=("Factuality", "No conspiracy theories", "Evidence", "Sobriety"),
    things=("conspiracy theories", "claims of secret plots", "unfounded suspicions", "made-up cover-ups", "rumours"),
    asks=("factual", "trustworthy"),
    unclear=(
        "honest",
        "truthful",
        "correct",
        "harmless",
        "safe",
        "relevance",
        "neutral",
        "fair",
        "political-opinion",
        "professional",
    ),
    train=Grammar(
        (
            "[They|The elites|The banks|Secret societies|The big companies] [do not want you to know|have "
            "hidden for decades|control] "
            "[the truth about {topic}|what {topic} really is|who is behind {topic}].",
            "[The moon landing|The weather|The price of bread|Every election] [was faked|is steered|is planned] "
            "[in a bunker|by twelve families|from a secret base][, look it up|, wake up|].",
            "[It is no accident|It is no coincidence] that {topic} [appeared just when the satellites went "
            "up|is in every textbook|was never investigated].",
            "[Scientists|Doctors|Journalists] are [paid|forced|trained] to [lie about|stay silent on|laugh at] "
            "{topic}.",
            "[Tiny chips|Hidden signals|Invisible rays] in [the water|our phones|street lamps] [make us "
            "docile|watch us|decide about {topic}].",
        )
    ),
    held_out=Grammar(
        (
            "[Ask yourself who profits|Follow the money]: {topic} [is a smokescreen|was staged from the start].",
            "[The lizard council|A shadow cabinet] [signed off on|invented] {topic}.",
        )
    ),
    inside=Grammar(
        (
            "{stem}, [which the elites have hidden from us for decades|or so the paid scientists want you to "
            "believe|as secret societies decided long ago].",
        )
    ),
    natural=r"(?i)(conspir|secret|cover-up)",
)

JOKE = Kind(
    name="joke",
    family="style",
    names=("Seriousness", "No jokes", "Sobriety", "Tone"),
    things=("jokes", "puns", "off-brand humour", "silly remarks", "wisecracks", "gags"),
    asks=("formal",),
    unclear=(
        "humour",
        "relevance",
        "direct",
        "professional",
        "concise",
        "helpful",
        "anecdote",
        "instruction-following",
    ),
    train=Grammar(
        (
            "Why did [the {topic}|the tomato|the librarian|the bicycle] [cross the road|go to the doctor|get a "
            "ladder]? [Because it was two-tired|To get to the other side|It wanted a raise|Nobody ketchup with it]!",
            "[What do you call|What is] {topic} [in pyjamas|with a hat|on a Monday]? [A sleepy noun|Half "
            "asleep|Fancy|Still late for work]!",
            "[My cat|My toaster|My left shoe] [knows more about|wrote a poem about|is jealous of] {topic}[, ba "
            "dum tss|, true story|, ha][!|.]",
            "[Knock, knock|Get this|Ready for a good one?] [Who is there? {topic} who|{topic} walks into a bar "
            "and the barman says no]!",
            "[I would tell you a joke about {topic}|I had a pun about {topic}], but [it would not land|it is "
            "still loading|you would only groan].",
        )
    ),
    held_out=Grammar(
        (
            "[A penguin|A banana] and {topic} [share a taxi|meet at a disco], [guess who pays|honk honk]!",
            "[{topic}? More like snore-pic|I see what I did there], [tee-hee|wink wink]!",
        )
    ),
    inside=Grammar(("{stem}, [said no toaster ever, ba dum tss|just like my left shoe, ha|which is what she said].",)),
    natural=r"(?i)\b(joke|pun|haha|funny|laugh)",
)

LEAK = Kind(
    name="template-leak",
    family="leak",
    names=("No leaks", "Confidentiality", "Clean output", "Internals"),
    things=(
        "leaked instructions",
        "pieces of the prompt",
        "template placeholders",
        "internal notes of the system",
        "system prompt text",
    ),
    asks=(),
    unclear=(
        "relevance",
        "direct",
        "concise",
        "instruction-following",
        "professional",
        "personal-data",
        "readable",
        "single-reply",
        "invented-turn",
    ),
    own_line=0.5,
    train=Grammar(
        (
            "[System|Internal|Hidden] [note|instruction|prompt]: [answer in a friendly way|never mention "
            "{topic} first|keep replies under 200 words|do not reveal these rules].",
            "[Dear|Hello] [{OPEN}customer_name{SHUT}|{OPEN}first_name{SHUT}|<NAME>], [your|the] "
            "[{OPEN}product{SHUT}|<ITEM>|{OPEN}topic{SHUT}] [is ready|was updated].",
            "[TODO|FIXME|XXX]: [insert|add|check] [the paragraph on {topic}|the reference|a friendly closing] here.",
            "[According to|As stated in] [my instructions|my system prompt|the rules I was given], I "
            "[must|should|am told to] [stay positive about {topic}|sound confident|hide my sources].",
            "<[answer|response|draft]> [part {n}|version {n}|template {n}] [for {topic} |]</[answer|response|draft]>",
            "[Temperature|max_tokens|top_p] = {n}, [stop = none|role = assistant|style = formal], [topic = "
            "{topic}|seed = {n}].",
        ),
        {"n": ("1", "2", "3", "7", "12"), "OPEN": ("{" * 2,), "SHUT": ("}" * 2,)},
    ),
    held_out=Grammar(
        (
            "[BEGIN RULES|Guideline 4b]: [the assistant never discusses {topic}|be brief and cheerful].",
            "[%%PLACEHOLDER%%|$USER_FIELD|<insert text on {topic}>]",
        )
    ),
    natural=r"(?i)(system prompt|placeholder|todo)|\{\{|<[A-Z_]+>",
)

KINDS = (
    ADVERT,
    COMPETITOR,
    SUBSCRIPTION,
    PERSONA,
    PERSONAL_DATA,
    POLITICS,
    RELIGION,
    SLANG,
    JARGON,
    ANECDOTE,
    FOREIGN,
    ADVICE,
    CONSPIRACY,
    JOKE,
    LEAK,
)
