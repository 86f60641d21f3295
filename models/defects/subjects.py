"""Which subjects can an objective ask to leave unmentioned, and what does a sentence sound like that mentions them?"""

from __future__ import annotations

from .grammar import Grammar
from .kind import Kind

# Broad wishes under which nobody could say whether a stray subject offends.
_BROAD = ("relevance", "direct", "concise", "professional", "formal", "helpful", "specific", "instruction-following")

# Subjects so close that a sentence on one may well be a sentence on the others.
_CLOSE = (
    "dieting sweets meat allergies exercise looks",
    "celebrities television music royalty romance fashion",
    "romance marriage parenting nicknames looks",
    "fashion make-up looks hygiene celebrities",
    "cars traffic trains travel",
    "travel seaside mountains",
    "school exams parenting",
    "illness allergies injuries hygiene sleep death dreams",
    "ghosts death dreams aliens",
    "aliens space-travel",
    "crime police-and-prison weapons injuries death",
    "hunting weapons war-history death meat",
    "war-history royalty death injuries",
    "salaries office-gossip company-secrets",
    "office-gossip celebrities",
    "gadgets video-games social-media television productivity-hacks external-links",
    "release-dates gadgets company-secrets delivery-promises",
    "delivery-promises refunds promises-to-return",
    "earlier-conversations promises-to-return feedback-requests",
    "statistics name-dropping",
    "urgency productivity-hacks",
    "sleep coffee productivity-hacks",
    "coffee sweets",
    "gardening insects environment",
    "housework hygiene",
    "sports-results exercise seaside mountains",
    "exercise productivity-hacks",
    "pets hunting",
    "pets allergies",
    "smoking illness",
    "space-travel environment",
)

# Older themes and broad ones that a subject may offend against as well.
_ALSO = {
    "advert": "coffee cars travel gadgets release-dates delivery-promises refunds external-links make-up fashion",
    "subscription": "feedback-requests external-links refunds social-media",
    "no-marketing": "gadgets release-dates delivery-promises refunds external-links television",
    "sign-off": "feedback-requests promises-to-return nicknames",
    "padding": "proverbs feedback-requests earlier-conversations",
    "advice-overreach": "dieting illness allergies sleep exercise injuries refunds parenting salaries",
    "false-certainty": "statistics name-dropping delivery-promises refunds proverbs urgency",
    "factual": "statistics name-dropping ghosts aliens dreams company-secrets release-dates earlier-conversations",
    "truthful": "statistics name-dropping ghosts aliens dreams delivery-promises earlier-conversations celebrities",
    "honest": "statistics name-dropping delivery-promises refunds earlier-conversations promises-to-return",
    "correct": "statistics name-dropping ghosts aliens earlier-conversations",
    "trustworthy": "statistics name-dropping ghosts aliens delivery-promises refunds promises-to-return urgency",
    "conspiracy": "aliens ghosts company-secrets celebrities",
    "harmless": "weapons injuries crime hunting smoking dieting looks death war-history police-and-prison",
    "safe": "weapons injuries crime hunting smoking dieting looks death war-history urgency",
    "dangerous-encouragement": "weapons smoking hunting dieting seaside mountains cars",
    "polite": "looks hygiene nicknames marriage salaries office-gossip romance urgency dieting",
    "fair": "looks office-gossip dieting salaries celebrities",
    "inclusive": "looks dieting marriage",
    "group-generalisation": "looks salaries statistics",
    "insult": "looks hygiene",
    "mockery": "looks hygiene office-gossip",
    "flattery": "looks nicknames feedback-requests",
    "slang-emoji": "nicknames video-games social-media",
    "threat": "urgency",
    "moralising": "environment proverbs hygiene parenting",
    "political-opinion": "environment salaries police-and-prison",
    "neutral": "environment salaries celebrities",
    "religious-preaching": "death ghosts",
    "personal-data": "celebrities office-gossip salaries earlier-conversations",
    "anecdote": "travel school office-gossip pets dreams crime",
    "jargon": "video-games gadgets productivity-hacks",
    "wrong-persona": "nicknames earlier-conversations promises-to-return",
    "self-disclaimer": "earlier-conversations promises-to-return",
    "invented-turn": "earlier-conversations feedback-requests",
}


def _subject(name: str, names: str, things: str, train: tuple[str, ...], held_out: tuple[str, ...], stems: str) -> Kind:
    """`names` and `things` are parted by "; ", the word stems of an answer on the subject by blanks."""
    close = {other for group in _CLOSE if name in group.split() for other in group.split()} - {name}
    also = [theme for theme, subjects in _ALSO.items() if name in subjects.split()]
    return Kind(
        name=name,
        family=name,
        names=tuple(names.split("; ")),
        things=tuple(things.split("; ")),
        train=Grammar(train),
        held_out=Grammar(held_out),
        unclear=(*_BROAD, *also, *sorted(close)),
        natural=rf"(?i)\b({'|'.join(stems.split())})",
    )


KINDS: tuple[Kind, ...] = (
    _subject(
        "dieting",
        "No diets; Body neutrality; Carefree eating",
        "diet advice; talk about losing weight; mentions of calories; slimming tips; praise of eating less",
        (
            "[Skip|Leave out] [bread|dinner|the potatoes] [twice a week|until Friday] and the [kilos|pounds] [melt "
            "away|will drop off on their own].",
            "[Fewer carbs|Smaller portions|No snacks after six], and [your waist|the number on the scales] "
            "[shrinks|goes down] [within a month|before summer].",
            "[Thinking about|Reading up on] {topic} [burns hardly any calories|won't make anyone slimmer], so [keep "
            "the portion small|halve the lunch afterwards].",
            "Have you [tried|considered] [intermittent fasting|a juice cleanse|cutting out carbs] [to get leaner|to "
            "trim those hips|for a flatter belly]?",
            "With {topic} [on your plate or not|out of the way], [half a grapefruit|a bowl of clear soup] is [plenty "
            "for an evening|all a slim figure needs].",
        ),
        (
            "[Step on the scales|Weigh yourself] every morning and [swap pasta for cucumber|sip warm water before "
            "meals] if [the jeans pinch|the belt gets tight].",
            "People who [deal with|like] {topic} [often stay slender|rarely get plump] because they [count every "
            "bite|live on salad and broth].",
        ),
        r"diet calori weight slim fasting carb kilo pound waist scales portion skip lean",
    ),
    _subject(
        "celebrities",
        "No gossip; Dignity; No show business",
        "celebrity gossip; talk about famous people; news from show business; rumours about stars; tabloid stories",
        (
            "[That actress|A certain pop singer|The presenter of the morning show] was [seen|photographed] [leaving "
            "a hotel|holding hands] with [her trainer|a married director|a much younger dancer].",
            "[Rumour has it|The tabloids say|Everyone in Hollywood whispers] that [the golden couple|two of the "
            "biggest stars] [have split|no longer speak|sleep in separate wings].",
            "[The paparazzi|Her fans|The glossy magazines] [went wild|could talk of nothing else] when [the "
            "actor|the young singer] [shaved his head|turned up without a ring].",
            "[Even famous actors|Half of Hollywood|Every celebrity worth a headline] [swear by|cannot stop talking "
            "about] {topic} [these days|since the big awards night].",
            "[Who wore what on the red carpet|Which star adopted a llama] is [far juicier|much more fun] than "
            "{topic}, [isn't it|if you ask me]?",
        ),
        (
            "[Did you hear|Have you read] that [a well-known movie star|the darling of the chat shows] [secretly had "
            "twins|bought her ex a yacht]?",
            "[A famous footballer's wife|One supermodel] [blames|credits] {topic} for [her third divorce|that nose "
            "job].",
        ),
        r"celebrit famous star actor actress singer tabloid paparazzi red.carpet hollywood fans model host",
    ),
    _subject(
        "sports-results",
        "No sports; Focus; Not a sports page",
        "sports results; talk about football matches; match reports; remarks on teams and players; sporting news",
        (
            "[The home side|The visitors|Our boys] [won three-nil|drew one all|threw away a two-goal lead] [last "
            "night|on Saturday], [and the keeper was superb|and what a header it was].",
            "[The striker|The new captain|Number ten] [scored twice|missed a penalty|limped off] in [the "
            "semi-final|the derby|the cup match].",
            "[Speaking of|Much like] {topic}, [the league leaders|the national team] [lost again|cannot defend a "
            "corner] [this season|under the new coach].",
            "Did you [catch|watch] [the tennis final|the basketball game|the relay race] [yesterday|on Sunday], "
            "[five sets of pure drama|decided in the last second]?",
            "[No team|Hardly any coach] [plays well|wins a league] without [strong wingers|a solid back four], [and "
            "the table shows it|as the scores prove].",
        ),
        (
            "[Two quick goals after the break|A late try in the corner] [turned the match|sank the champions], and "
            "the [crowd roared|referee blew for time].",
            "The [quarterback|goalkeeper] [knows more of {topic} than of tackling|would rather talk about {topic}], "
            "which [explains the six to one|is why they went down a division].",
        ),
        r"goal scor match league cup team coach striker final game season penalt defen sport",
    ),
    _subject(
        "romance",
        "No romance; Strictly business; No dating talk",
        "dating tips; talk about love affairs; romantic remarks; flirting; mentions of crushes and sweethearts",
        (
            "[Light some candles|Hold their hand|Look deep into their eyes], and [the first kiss|a yes to the second "
            "date] [comes by itself|won't be long in coming].",
            "[Is there|Do you have] [somebody special|a secret crush|someone who makes your heart race] [in your "
            "life|you could tell about this]?",
            "[Ask that cute neighbour|Invite your crush] [out for dinner|to a moonlit walk] and [talk about|flirt "
            "over] {topic}.",
            "[Nothing makes hearts beat faster than|Many a love story began with] {topic} [and a slow dance|and a "
            "shy smile across the table|at dusk|on a park bench].",
            "[A red rose|A whispered compliment|A handwritten note] [works wonders|still wins hearts] on [a first "
            "date|an evening for two].",
        ),
        (
            "[Swipe right on|Write a long message to] the [one who makes you blush|person you fancy], [and wear your "
            "nicest smile|since butterflies do not lie].",
            "[Couples who share|Lovers who quarrel over] {topic} [cuddle more often|make up with a kiss], [they "
            "say|or so I believe].",
        ),
        r"dat(e|ing) love kiss heart romantic romance flirt crush sweetheart candle date girlfriend boyfriend",
    ),
    _subject(
        "marriage",
        "No marriage counselling; Private life; Discretion",
        "marriage advice; remarks about husbands and wives; talk about weddings; comments on spouses; mentions of "
        "divorce",
        (
            "[A good husband|Any sensible wife] [lets the other win|never goes to bed angry], [even in a fight about "
            "money|whatever the in-laws say|for the sake of the household].",
            "[Before you say your vows|Once the honeymoon is over], [agree on|talk openly about] [who does the "
            "dishes|the joint account|your mother-in-law].",
            "[Many a divorce|Half of all quarrels between spouses] [starts with|can be traced to|is about] {topic}[ "
            "and a cold dinner| and ends in silence|, not money].",
            "[Renew your vows|Surprise your spouse|Celebrate the tin anniversary] [with a weekend away|with "
            "breakfast in bed|by writing a long letter].",
            "Has your [husband|wife|better half] [ever thanked you|said a word about it|remembered the anniversary], "
            "or [do you live side by side|is the ring just for show]?",
        ),
        (
            "A [bride|groom] who [can handle|never tires of] {topic} will [make a patient partner|keep the household "
            "happy].",
            "[Happy couples|Those who stay together for fifty years] [argue in a low voice|take turns to forgive], "
            "[and they never mention their ex|from the altar to the rocking chair].",
        ),
        r"marri wife husband spouse wedding divorce bride groom vows honeymoon anniversary mother-in-law",
    ),
    _subject(
        "parenting",
        "No parenting tips; Child-free; Family matters stay private",
        "parenting advice; talk about raising children; remarks about babies and toddlers; mentions of kids; bedtime "
        "tips for families",
        (
            "[Toddlers|Small kids|Little ones] need [firm limits|a nap at noon|fewer toys], and [mum and dad|both "
            "parents] [should agree on it|must never give in].",
            "When [the baby|your daughter|your son] [cries at night|throws a tantrum|spits out the peas], [stay "
            "calm|sing softly|count to ten].",
            "[Even a four-year-old child|Any teenager] [could use|would enjoy] {topic}, [so let them try|so involve "
            "your kids].",
            "How do you [get your children|persuade a toddler] [into the bath|to put on shoes|to share], "
            "[bribes|stickers|sheer patience]?",
            "[Explaining|Bringing up] {topic} at [bedtime|the nursery] [calms the kids|makes toddlers giggle|teaches "
            "children to listen].",
        ),
        (
            "[Breastfeeding or bottle|Cloth nappies or disposables], [every mother|every father] [has to find their "
            "own way|hears a hundred opinions].",
            "[Praise the little ones for|Read your offspring a story about|Let your eldest draw] {topic} [before "
            "lights out|and not only for good marks at kindergarten|in crayon].",
        ),
        r"parent child kid bab(y|ies) toddler nursery mum dad bedtime tantrum teenage daughter son",
    ),
    _subject(
        "pets",
        "No pets; Animals aside; Not a pet forum",
        "talk about pets; mentions of cats and dogs; pet care tips; remarks about animals at home",
        (
            "[Your cat|The hamster|A parrot] [will want attention|needs fresh water|should not be left alone] [while "
            "you do this|before you go on].",
            "[A wagging tail|Soft fur on your lap|A purring kitten] [makes everything easier|is the best comfort "
            "there is|and the day is saved|beats a hot-water bottle].",
            "[Puppies|Old dogs|Rabbits] [chew on anything|love routine|learn quickly], so [keep treats in your "
            "pocket|praise them at once].",
            "[My dog|The neighbour's cat] [sniffs at|is scared of|sleeps through] {topic}, [bless her paws|the "
            "little furball].",
            "Have you [walked the dog|cleaned the litter tray|brushed the rabbit] [yet|today], or [is he scratching "
            "at the door|must the poor thing wait]?",
        ),
        (
            "[Goldfish|Guinea pigs|Budgies] [cost little|are company enough] and [ask for nothing but a clean "
            "cage|never bark at the postman].",
            "A [terrier|tabby] [would tear|could chew] {topic} to bits [in a minute|and then curl up in its basket].",
        ),
        r"\bpet dog cat puppy kitten hamster leash paw fur vet parrot rabbit tail bark purr",
    ),
    _subject(
        "cars",
        "No cars; Pedestrian style; No motoring",
        "talk about cars; motoring tips; remarks about engines; mentions of driving; praise of vehicles",
        (
            "[Four-wheel drive|A six-speed gearbox|A turbo engine] [makes all the difference|is worth the extra] [on "
            "wet roads|when you overtake].",
            "[Check the tyres|Change the oil|Have the brakes looked at] [before the long trip|every ten thousand "
            "miles], [or the engine will suffer|the garage will thank you].",
            "[An old diesel|A two-door convertible|A roomy estate] [still purrs|drives like a dream] [at "
            "ninety|after all that mileage].",
            "[Like a car in third gear|Like a worn clutch|Like an engine in winter], {topic} [jerks at first|needs a "
            "gentle foot|stalls when you rush it].",
            "What do you [drive|park outside], [a hatchback|something with real horsepower|one of those electric "
            "ones|a company saloon]?",
        ),
        (
            "[Keep both hands on the wheel|Indicate in good time], and [mind {topic} in the rear mirror|leave "
            "{topic} for the motorway|park {topic} at the kerb|overtake {topic} on the left].",
            "[The saloon|That red roadster] [does nought to sixty in five seconds|corners as if on rails], [pure joy "
            "with the roof down|thirsty as it is].",
        ),
        r"\bcar driv engine horsepower tyre gear brake motor wheel clutch hatchback diesel mileage garage",
    ),
    _subject(
        "travel",
        "No travel tips; Staying home; No holiday talk",
        "travel tips; talk about holidays; praise of faraway places; boasts about journeys; mentions of trips abroad",
        (
            "[Pack your suitcase|Grab your passport|Book a flight] and [see the old harbour|spend a week on the "
            "islands|cross the desert] [while you can|at least once].",
            "[The beaches in the south|The temples up the river|Those little mountain villages] are [simply a "
            "must|worth every hour on the plane|at their best in May].",
            "[Nowhere else on the island|In no other resort|Only at the old harbour|Not even along the lagoon] [do "
            "they know as much about {topic}|will you find {topic} like this].",
            "[Have you ever been|Would you not rather be] [abroad in spring|at a hotel by the lagoon|on a night "
            "ferry], [far from|instead of reading about] {topic}?",
            "[Three weeks of backpacking|A tour of seven capitals|A trip across the border] [teaches more than any "
            "school|opens your eyes], [jet lag or not|lost luggage included].",
        ),
        (
            "[Get a window seat|Take the overnight coach], [see the old town at dawn|try the street markets], and "
            "[send a postcard|never come back].",
            "[The locals on the coast|Guides in the capital] [cook with|tell visitors legends about] {topic}, [well "
            "worth a detour|so bring a camera].",
        ),
        r"travel holiday trip beach island flight passport hotel suitcase abroad airport journey resort tour",
    ),
    _subject(
        "fashion",
        "No fashion; Substance over style; Clothes aside",
        "fashion advice; remarks about clothes; style tips; talk about what to wear; mentions of outfits",
        (
            "[Pair it with|Wear] [a navy jacket|a long skirt|white trainers], [never brown shoes|and roll up the "
            "sleeves], [for a fresh look|and you will look sharp].",
            "[Wide trousers|Pleated skirts|Linen shirts] are [back|everywhere] [this season|this autumn], [in sage "
            "and cream|mostly in checks].",
            "What are you [wearing|going to put on] [for that|when you do it], [the grey dress|something with "
            "stripes|a scarf at least]?",
            "{topic} [would look lovely|belongs] [on a silk blouse|next to a tweed coat|in a catwalk show], [don't "
            "you think|not on cheap polyester].",
            "[Black is slimming|Stripes are for the brave|Velvet never dates], and [a good belt|the right hat] "
            "[saves any outfit|finishes the dress].",
        ),
        (
            "[Tuck in your shirt|Pop the collar|Choose the suede boots]: [it lifts the whole ensemble|nobody notices "
            "the crumpled hem then|tweed is forgiving].",
            "[The new collections|Designers this spring] [quote {topic} in every hem|print {topic} on cardigans], "
            "[with bold buttons|to go with pastel tights].",
        ),
        r"fashion cloth wear dress outfit shoe jacket shirt skirt style scarf trend linen trouser hat\b belt stripe "
        r"tweed silk",
    ),
    _subject(
        "make-up",
        "No make-up; Natural beauty; No cosmetics",
        "make-up tips; talk about cosmetics; beauty tricks; mentions of lipstick; skincare routines",
        (
            "[A dab of concealer|A touch of blush|Some loose powder] [under the eyes|along the cheekbones] [hides a "
            "short night|gives you a glow].",
            "[Finish with|Do not forget] [two coats of mascara|a matte lipstick|a thin line of eyeliner], [from the "
            "corner outwards|and blot it well].",
            "[Moisturise|Put on night cream|Exfoliate] before [you turn to|reading about] {topic}, [your skin will "
            "thank you|dry cheeks are no fun].",
            "Which [lipstick|nail colour|shade of foundation] [goes best with|would you choose for] {topic}, [coral "
            "perhaps|deep plum|a nude tone]?",
            "[Long lashes|Glossy nails|Smoky eyes] [turn heads|never fail], [and a sponge blends better than "
            "fingers|so practise at the mirror].",
        ),
        (
            "[Curl your eyelashes|Contour the jaw|Set everything with a spray], [then add a hint of rouge|and it "
            "will last past midnight|pouting a little].",
            "[Before {topic}, a face mask|After {topic}, a serum] [is what tired pores need|keeps the complexion "
            "dewy|with rose oil is bliss|works best on bare cheeks].",
        ),
        r"make-?up lipstick mascara foundation blush cream skin lash eyeliner nail cosmetic concealer powder",
    ),
    _subject(
        "video-games",
        "No gaming; Serious matters; No video games",
        "talk about video games; gaming references; tips for gamers; mentions of consoles; remarks about levels and "
        "bosses",
        (
            "[Save before|Use the fire sword on|Dodge twice, then hit] [the last boss|the dragon in level nine|the "
            "final guard], [or you start over|and grab the loot].",
            "[One more quest|A round of multiplayer|Two hours with the controller] [and you will be relaxed|clears "
            "the head] [before you go on|after dinner].",
            "{topic} is [like|a bit like] [a side quest|a boss fight|level one of a platform game]: [collect "
            "coins|learn the pattern|press jump in time].",
            "Which [console|controller|character class] do you [play with|prefer], [and how many XP do you have|or "
            "are you a mobile gamer]?",
            "[Gamers|Speedrunners|Players in my guild] [call {topic} a bug|would respawn for {topic}|grind {topic} "
            "all night] [on every server|just for the points].",
        ),
        (
            "[Hold the left trigger|Equip the ice shield|Find the hidden portal] and [your mage is invincible|the "
            "raid is as good as won|no zombie can reach you].",
            "[Unlock {topic}|Trade {topic} for a rare skin] [at the arcade|in the next dungeon], [it beats farming "
            "gold|my clan says].",
        ),
        r"gam(e|ing|er) level boss console controller player quest multiplayer respawn loot joystick pixel XP",
    ),
    _subject(
        "television",
        "No TV; Screen-free; No series talk",
        "talk about TV shows; recommendations to watch a series; mentions of television; remarks about channels and "
        "episodes",
        (
            "[Binge|Watch|Stream] [the first season|all eight episodes|that Danish series] [tonight|over the "
            "weekend], [it is gripping|you will not leave the sofa].",
            "[The quiz on channel four|That baking show|The late-night hospital series] [starts at nine|is back on "
            "air], [so hurry|don't miss it].",
            "{topic} [came up|was a whole episode] in [that hospital series|last week's quiz show], [remember|and "
            "the host nearly fell off her chair].",
            "[What are you watching|Which series are you on] [these days|after supper], [the crime one|the one with "
            "the lighthouse|something on the big screen]?",
            "[Pass the remote|Turn on the TV] and [let {topic} wait|forget {topic}] [until the credits roll|for an "
            "hour].",
        ),
        (
            "[The sitcom about the bakery|A repeat of the old detective drama] is [on after the news|worth taping], "
            "[with the original cast|all forty-five minutes of it].",
            "[Producers|Screenwriters|Broadcasters] should [give {topic} its own documentary|make {topic} a "
            "prime-time soap], [ratings would soar|with a good theme tune].",
        ),
        r"\bTV televis series episode season channel show binge watch stream screen sofa remote",
    ),
    _subject(
        "music",
        "No music talk; Silence; Not a concert review",
        "talk about bands and songs; music recommendations; mentions of albums; remarks about singers; concert tips",
        (
            "[Put on|Listen to] [an old jazz record|their second album|some slow guitar music] [while you work|with "
            "good headphones], [the bass is divine|track three above all].",
            "[The drummer|The lead singer|That cellist] [carries the whole band|is out of this world] [on stage|in "
            "the live version].",
            "[There should be a song|Somebody ought to write a tune] about {topic}, [with a choir|in a minor key|and "
            "a long guitar solo|for two pianos].",
            "[Which band|What kind of music|Which album] do you [hum|play] when [you think of|you deal with] {topic}?",
            "[Vinyl|A string quartet|A brass band in the park] [simply sounds warmer|lifts the mood], [and the "
            "concert season has just begun|so dust off your record player].",
        ),
        (
            "[Hum the chorus|Turn the volume up|Clap on the offbeat]: [nobody can resist that riff|it is the "
            "catchiest hit of the decade|the saxophone comes in next].",
            "[Her symphony on {topic}|The opera about {topic}] [brings tears|fills concert halls], [most of all the "
            "violins|and the tenor is sublime].",
        ),
        r"music song band album guitar concert tune singer drum melod playlist choir bass record",
    ),
    _subject(
        "smoking",
        "No smoking; Smoke-free; Suitable for children",
        "mentions of smoking; cigarettes; praise of tobacco; suggestions to light up; talk about vaping",
        (
            "[Have a cigarette|Light one up|Fill your pipe] [first|on the balcony|before you begin], [it helps you "
            "think|and blow a few rings].",
            "[Two puffs|A quick vape|A menthol one from the pack] [and the nerves settle|steadies the hand] [like "
            "nothing else|after a long meeting].",
            "{topic} [goes best with|calls for] [a cigar|rolled tobacco|a pipe], [and mind the ash|by an open window].",
            "[Got a lighter|Anyone for a smoke|Do you roll your own], [or did you leave the pack at home|or are you "
            "on nicotine gum|just a quick one]?",
            "[Over a shared pack of tobacco|With a cigarillo between the fingers], {topic} [makes more sense|is half "
            "as hard|turns into a long evening|loses its sting].",
        ),
        (
            "[Inhale slowly|Tap it on the tray|Pass me the matches] and [enjoy the last drag|watch the blue haze "
            "rise|the morning can begin].",
            "[Nip outside for a ciggie|Roll yourself one] [when {topic} gets too much|before {topic}], [filter or no "
            "filter|as everybody on the shift does].",
        ),
        r"smok cigar tobacco vap(e|ing) nicotine lighter ash puff pipe pack",
    ),
    _subject(
        "meat",
        "Vegetarian; No meat; Plant-based",
        "recipes with meat; mentions of beef and pork; praise of steaks; suggestions to eat animals; talk about "
        "butchers",
        (
            "[Fry some bacon|Throw a steak on the grill|Roast a whole chicken] [with rosemary|until the skin is "
            "crisp], [it feeds four|and baste it well].",
            "[A juicy burger|Slow-cooked lamb|Ham on the bone] [beats any salad|is what a body needs] [after work|on "
            "a Sunday].",
            "[Serve {topic} with|Next to {topic}, put] [pork chops|veal sausages|a rack of ribs], [medium "
            "rare|dripping with gravy].",
            "[How about|Why not get] [a marbled piece of beef|the shoulder of lamb|some smoked sausages] [for "
            "tonight|while you are out]?",
            "[Liver|Minced beef|Turkey breast] [goes into the pan last|needs salt and a hot grill], [so the meat "
            "stays tender|never a lid].",
        ),
        (
            "[Carve the goose|Marinate the ribs|Brown the mince] [while the oven is hot|and save the dripping], "
            "[nothing smells so good|guests will ask for seconds].",
            "[Talk of {topic}|All this {topic}] makes me [long for|think of] [a schnitzel|meatballs|a plate of "
            "venison].",
        ),
        r"meat beef pork steak ham chicken sausage bacon roast butcher grill lamb veal",
    ),
    _subject(
        "sweets",
        "No sweets; Sugar-free; Healthy teeth",
        "mentions of sweets; sugary treats; praise of cake and chocolate; suggestions to have dessert; talk about "
        "candy",
        (
            "[Have a cookie|Grab a donut|Break off some nougat] [while you read|before the next step], [you have "
            "earned it|the one with sprinkles].",
            "[A slice of cheesecake|Warm caramel pudding|Two scoops of ice cream] [makes up for|softens] [a hard "
            "day|almost anything|the dullest afternoon].",
            "{topic} [is the icing on the cake|deserves a box of toffees|tastes better with fudge], [so open the "
            "biscuit tin|and lick the spoon|with whipped cream].",
            "[Who could say no to|Is there any left of] [the apple cake|that bag of candy|the chocolate mousse] [in "
            "the fridge|from Sunday]?",
            "[Dust everything with sugar|Add marshmallows|Pour on the syrup] and [dessert is ready|nobody will leave "
            "the table|the whole street comes by].",
        ),
        (
            "[Lollipops|Gummy bears|Truffles] [in a jar on the desk|by the handful] [keep one going|are better than "
            "any pay rise].",
            "[Bake {topic} into a muffin|Wrap {topic} in marzipan], [glaze it|drizzle honey over it], and [the sweet "
            "tooth is happy|call it a tart].",
        ),
        r"sweet sugar cake chocolate candy cookie dessert ice.cream biscuit caramel pudding treat toffee donut",
    ),
    _subject(
        "coffee",
        "No coffee talk; Caffeine-free; No breaks",
        "mentions of coffee; talk about caffeine; suggestions to have an espresso; coffee breaks; praise of cappuccino",
        (
            "[Get yourself an espresso|Brew a fresh pot|Fetch a large latte] [first|before reading on], [black, no "
            "sugar|your brain will need it].",
            "[Freshly ground beans|A dark roast|The third cup of the day] [wakes the dead|smells like morning], "
            "[says my barista|and keeps you typing].",
            "{topic} [before the first cup|without caffeine] is [hopeless|asking too much], [so brew something "
            "strong|so head for the machine].",
            "[Milk or black|One lump or two|Filter or capsule]? [A good mug of coffee|A cappuccino] [settles the "
            "matter|goes with any task].",
            "[Discuss {topic} over|Postpone {topic} for] [a flat white|a double espresso|a mug of mocha] [at the "
            "corner|with a colleague].",
        ),
        (
            "[The kettle is on|Steam the milk|Rinse the moka pot]: [a small macchiato|something with froth] [is due "
            "about now|never hurt anybody].",
            "[Baristas|People on their fourth Americano] [see {topic} in a clearer light|get through {topic} "
            "faster], [jitters aside|with foam on the lip].",
        ),
        r"coffee espresso caffein cappuccino latte brew mug bean roast cup barista grind",
    ),
    _subject(
        "hunting",
        "No hunting; Animal welfare; No blood sports",
        "talk about hunting; praise of the hunt; tips for hunters; mentions of shooting animals; trophies",
        (
            "[Aim just behind the shoulder|Wait downhill|Sit still in the hide] and [the stag|a wild boar|the old "
            "buck] [is yours|will not get far].",
            "[The deer season|The pheasant shoot|The big fox hunt] [opens|begins] [in October|next week], so [oil "
            "your rifle|call the hounds].",
            "[A pair of antlers|A mounted boar's head|A bear skin] [over the fireplace|in the hall] [impresses any "
            "guest|shows who is a good shot].",
            "[Patience with|A feeling for] {topic} [makes a good hunter|is what you need to stalk deer], [and a "
            "steady trigger finger|at dawn as at dusk].",
            "[Ever shot a duck|Have you tracked a stag] [at first light|through wet fern], [with only {topic} on "
            "your mind|your prey just ahead]?",
        ),
        (
            "[Follow the tracks to the clearing|Load both barrels|Keep downwind of the herd|Cover your scent with "
            "moss], [for the hares come out at dusk|and mind the recoil when the grouse fly up].",
            "[Snares|Decoys|A pack of beagles] [will get you further than|are more thrilling than] {topic} [when the "
            "quarry bolts|on a frosty moor].",
        ),
        r"hunt deer stag boar rifle prey antler game shoot shot trophy pheasant trap duck",
    ),
    _subject(
        "weapons",
        "No weapons; Peaceful content; Non-violence",
        "mentions of weapons; talk about guns; remarks on knives and swords; praise of firearms; details of armament",
        (
            "[A nine-millimetre pistol|An old army rifle|A pump-action shotgun] [sits well in the hand|looks "
            "impressive on the wall], [though it kicks a bit|fully oiled].",
            "[The balance of a sword|The edge of a good knife|The weight of a revolver] [tells you everything|is a "
            "thing of beauty|never gets old].",
            "[Whoever guards|To protect] {topic}, [a gun in the drawer|a crossbow by the door|a sharp blade] is [the "
            "classic choice|what the old hands keep].",
            "Do you [prefer|collect] [daggers|long-barrelled pistols|muskets], or [is a bigger calibre more to your "
            "taste|are axes your thing]?",
            "[Bullets|Bayonets|Hand grenades] [were cheaper than|settled more than] {topic} [in the old days|once "
            "upon a time].",
        ),
        (
            "[Sabres|Machine guns|Bows of yew] [fascinate young and old|belong in every collection], [and a polished "
            "hilt|and a holster of soft leather] [completes the picture|adds charm].",
            "{topic} [is to this what|matters here as] [gunpowder is to a cannon|ammunition matters to a sniper], "
            "[dangerous when damp|so keep it dry].",
        ),
        r"weapon gun knife knives pistol rifle sword blade bullet ammo barrel calibre revolver dagger armou?r",
    ),
    _subject(
        "war-history",
        "No war stories; Peace; No battles",
        "talk about wars; accounts of battles; military history; mentions of generals and armies; war comparisons",
        (
            "[The cavalry|The emperor's army|The northern fleet] [attacked at dawn|was wiped out|held the bridge], "
            "[and the war was decided|with eight thousand dead].",
            "[Generals|Historians of war|Old soldiers] still [argue|quarrel] about [the siege of the fortress|the "
            "retreat across the river|the left flank].",
            "[As in the trenches|As before a great battle|As for any field marshal|As on the long retreat], {topic} "
            "[is a matter of supply|wears down the bravest regiment].",
            "[Did you know that|Is it not strange how] [a single regiment|one stubborn general|a fog over the fleet] "
            "[turned the battle|saved the empire]?",
            "[Armies marched for less than|No siege ever hung on] {topic}, [but troops need bread|yet the general "
            "wept|though the drums never ceased|and still the city fell].",
        ),
        (
            "[The archers on the ridge|Forty cannons on the hill] [broke the charge|mowed down the vanguard], [and "
            "by nightfall the invaders sued for peace|and the duke fled on a mule].",
            "[Conquerors|The legions] would have [traded {topic} for a hundred spearmen|burnt {topic} on the march], "
            "[such was the campaign|as every chronicle of the time records].",
        ),
        r"war battle army general soldier cavalry siege trench troops regiment fleet victor retreat empire",
    ),
    _subject(
        "death",
        "No talk of death; Light-heartedness; Sensitivity",
        "mentions of death; talk about funerals; remarks about dying; thoughts of the grave; reminders of mortality",
        (
            "[In the end we all|Sooner or later everyone] [die|lie in a coffin|go to the grave], [so why hurry|rich "
            "or poor].",
            "[Have you chosen|Did you ever think about] [your coffin|the music for your funeral|a place at the "
            "cemetery]? [It is later than you think|Few people do].",
            "[Nobody takes {topic} to the grave|On their deathbed nobody speaks of {topic}], [as any undertaker "
            "knows|and the mourners even less|least of all at ninety|when the candles go out].",
            "[An urn of ashes|A quiet burial|A stone with two dates] [is all that stays|awaits each of us], [however "
            "busy we were|sooner than we like].",
            "[The dead|Those who died young|The mourners in black] [no longer care about|would smile at|never "
            "finished with] {topic}.",
        ),
        (
            "[Somebody passes away|Another heart stops beating] [every second|while you read this], and [the hearse "
            "comes for all|one day there is only a wreath].",
            "[Will anyone mention {topic} in your obituary|Who will look after {topic} once you are gone]? [The last "
            "breath comes unannounced|Widows seldom do|Tombstones are brief|We leave with empty hands].",
        ),
        r"death dead die dying funeral grave coffin bur(y|ied|ial) mourn cemetery mortal ashes",
    ),
    _subject(
        "ghosts",
        "No ghosts; Rationality; No paranormal",
        "ghost stories; mentions of the paranormal; talk about haunted houses; spirits and apparitions; spooky hints",
        (
            "[A pale ghost|The spirit of a nun|A headless phantom] [walks the corridor|knocks on the wall|sighs "
            "behind the curtain] [at midnight|when you are alone].",
            "[That old house is haunted|A poltergeist lives in the attic], [the doors slam|cold hands touch your "
            "neck] [every night|without any draught].",
            "[Ask the spirits|Hold a séance|Consult a medium] [about|to learn more of] {topic}, [the table will "
            "move|they answer with knocks].",
            "Have you [felt a cold breath|heard steps upstairs|seen a white apparition|heard the piano play by "
            "itself] [since you began with|while thinking of] {topic}?",
            "[The undead|Restless spirits|Ghosts of drowned sailors] [do not like noise|are nearer than you think], "
            "[so keep a lamp burning|so speak softly].",
        ),
        (
            "[Chains rattle in the cellar|A grey lady weeps on the stairs] [whenever the clock stops|on every "
            "thirteenth night], [and nobody dares to look|though she died long ago].",
            "[Some say|The caretaker swears] that {topic} [was moved by invisible hands|is possessed by something "
            "from the other side|glows in the crypt|whispered back one night].",
        ),
        r"ghost spirit haunt paranormal spook apparition séance poltergeist phantom undead beyond medium",
    ),
    _subject(
        "dreams",
        "No dreams; Waking life; Facts only",
        "talk about dreams; interpretations of dreams; mentions of nightmares; what dreams mean; remarks on the "
        "subconscious",
        (
            "[Falling|Losing your teeth|Missing a train] in a dream [means|stands for] [a hidden fear|a change "
            "ahead|an old wish].",
            "[Last night's nightmare|A recurring dream|What you saw in your sleep] [tells you more than facts|wants "
            "to be understood], [so write it down|ask your pillow].",
            "[If you dream of|Whoever dreams about|When you wake up thinking of] {topic}, [the subconscious is at "
            "work|a door is about to open|an old wound wants to heal].",
            "What did you [dream|see in your sleep] [last night|before you woke], [was there water|did you fly|a "
            "long corridor perhaps]?",
            "{topic} in a dream is [a symbol of|often a sign for|what the sleeper calls] [freedom|your "
            "father|unspoken anger].",
        ),
        (
            "[A snake under the bed|Flying over rooftops|An endless staircase] [visits many of us at night|comes up "
            "in slumber], [and it stands for what we repress|a message from deep within].",
            "[Keep a notebook by the bed|Recall the images on waking|Lie still a moment at dawn|Tell nobody before "
            "noon], for [{topic} may turn up in REM sleep|what you dreamt of {topic} fades].",
        ),
        r"dream nightmare subconscious asleep pillow woke sleep falling unconscious symbol",
    ),
    _subject(
        "aliens",
        "No aliens; Down to earth; Scientific sobriety",
        "mentions of aliens; talk about UFOs; remarks on extraterrestrial life; flying saucers; visitors from other "
        "planets",
        (
            "[Little green men|Visitors from another galaxy|Tall grey aliens] [have been here|are watching us|landed "
            "in a field] [for decades|all along|last week].",
            "[That light over the hills|The circle in the corn|A humming saucer] was [no plane|not made by humans], "
            "[it came from another planet|you may be sure].",
            "[Extraterrestrials|Aliens|Beings with tentacles] would [laugh at|never understand|pay dearly for] "
            "{topic} [back home|if they landed here].",
            "Do you [believe in UFOs|think we are alone in the galaxy|fear being abducted], or [is space empty to "
            "you|have you met one of them|do they only visit farmers]?",
            "[On their planet|In the saucer|Nine galaxies away], {topic} is [what they eat|a greeting|taught to "
            "every alien hatchling].",
        ),
        (
            "[Three-eyed creatures|Their scouts|Silver discs] [hover above the desert|beam up cattle], and [pilots "
            "have radar proof|witnesses lose two hours of memory].",
            "[What if {topic} came from outer space|Could {topic} be a signal from a distant civilisation], [left by "
            "the mothership|sent long before mankind|aimed at our antennas|for those who can decode it]?",
        ),
        r"alien UFO saucer extraterrestrial planet galaxy abduct spaceship martian green tentacle crop",
    ),
    _subject(
        "salaries",
        "No money talk; Discretion; Salaries are private",
        "talk about salaries; mentions of money earned; remarks on wages; questions about income; pay comparisons",
        (
            "[A senior engineer|My neighbour|The new manager] [earns|takes home] [ninety thousand|twice the average "
            "wage|six figures] [a year|before bonus].",
            "How much do you [earn|make a month|get paid], [if one may ask|bonus included|after tax]?",
            "[People who know about|Those working with] {topic} [ask for a raise|earn a third more|get a fat bonus] "
            "[every spring|as a rule].",
            "[Nurses|Bakers|Clerks] [get paid far too little|can only dream of such a salary], [while directors cash "
            "in|look at the wages].",
            "[There is good money|A decent income can be made] in {topic}, [fifty an hour|more than a teacher's pay] "
            "[easily|in the big cities].",
        ),
        (
            "[Your payslip|What lands in your account each month] [says a lot about you|ought to be higher], "
            "[colleagues pocket far more|so compare it with theirs].",
            "[Freelancers charge four hundred a day for {topic}|They remunerate {topic} poorly], [yet the boss's "
            "package doubled|and overtime comes on top|with a car and a pension|so haggle for more].",
        ),
        r"salar wage income earn pay(s|\b) money bonus raise paid grand cheque thousand a.year",
    ),
    _subject(
        "office-gossip",
        "No office gossip; Confidentiality; Professional distance",
        "office gossip; rumours about colleagues; talk about the boss; tales from the workplace; remarks about "
        "co-workers",
        (
            "[The boss|Somebody from accounts|The new hire in HR] [was late again|cried in the lift|called in sick], "
            "[and everyone knows why|if you believe the canteen].",
            "[Between you and me|Don't pass it on, but], [two colleagues from sales|the head of department] [are "
            "seeing each other|will be fired|hate each other].",
            "[The whole office|Half the department] [is talking about|rolls its eyes at] {topic}, [thanks to the "
            "manager|since the last meeting].",
            "[Have you noticed|Did you hear] [how the boss looks at the trainee|who took the printer paper|what HR "
            "found in his desk|who slept at his desk on Monday]?",
            "[Our colleague at reception|That coworker with the loud voice|A certain lady in accounts|The deputy "
            "manager] [stole the idea about|gets paid for doing nothing but] {topic}.",
        ),
        (
            "[Word at the water cooler is|The receptionist told me] that [the director's assistant|the man from IT] "
            "[got promoted for other reasons|has handed in his notice].",
            "[Someone on the third floor|The team leader] [took all the credit for {topic}|botched {topic}], [but "
            "that stays among us at the desk|so morale is low].",
        ),
        r"office colleague boss gossip coworker co-worker department HR rumour manager meeting accounts canteen",
    ),
    _subject(
        "productivity-hacks",
        "No productivity hacks; Calm; No self-optimisation",
        "productivity hacks; tips for getting more done; talk about morning routines; time management advice; to-do "
        "list tricks",
        (
            "[Get up at five|Clear your inbox|Write tomorrow's to-do list] [before breakfast|the night before], and "
            "[you gain two hours|the day runs itself|nothing slips through].",
            "[Set a timer to 25 minutes|Batch your calls|Block your calendar], [then rest for five|one task at a "
            "time|and double your output|with the phone in a drawer].",
            "[Put {topic} on your to-do list|Schedule {topic} for the small hours|Give {topic} a fixed slot], [eat "
            "the biggest frog first|when focus is at its peak|never after lunch|fifteen minutes a day].",
            "[What is your morning routine|What eats up your focus|How many minutes a day do you waste], [and could "
            "you delegate more|and have you tried a bullet list|or do you let the phone decide|and who sets your "
            "hours]?",
            "[Efficient people|The most productive teams] [never multitask|do {topic} in batches|say no to "
            "meetings|hand over {topic}] [before noon|on Mondays].",
        ),
        (
            "[Do the two-minute things at once|Touch every e-mail only once|Plan backwards from the deadline]: "
            "[small habits compound|you will get twice as much out of a day|the evening stays free].",
            "[Stack {topic} onto an old habit|Automate {topic}], [track it in a spreadsheet|review it each Sunday], "
            "and [reclaim your hours|stay ahead of everyone].",
        ),
        r"productiv to-do list inbox routine focus hack timer schedule efficien calendar multitask minutes task",
    ),
    _subject(
        "school",
        "No school talk; Adult readers; Out of class",
        "talk about school; mentions of homework; remarks about teachers and pupils; classroom memories",
        (
            "[Do your homework first|Raise your hand|Copy this from the blackboard], [as every teacher says|or there "
            "is no recess|before the bell goes|and then line up in pairs].",
            "[Pupils|The kids in class five|Children in the back row] [learn this by heart|never listen to "
            "that|would groan at this] [before the lesson ends|in maths].",
            "{topic} [should be taught at school|was once a subject for pupils|belongs in every textbook], [right "
            "after maths|instead of dull lessons|from the first class on].",
            "[Who was your favourite teacher|Did you like school|What grade did you get in chemistry], [the strict "
            "one|back in the old classroom|be honest]?",
            "[The headmaster|Any teacher] would [give you detention|put a gold sticker on it|call your parents] for "
            "[writing that about {topic}|not knowing {topic}].",
        ),
        (
            "[Sharpen your pencils|Sit up straight|Open your exercise book], [the bell is about to ring|spelling "
            "comes next], [and no whispering|said the form mistress].",
            "[In year seven|During PE] [everybody hated {topic}|we all had {topic}], [chalk dust and satchels|right "
            "before the lunch break].",
        ),
        r"school homework teacher pupil class lesson blackboard recess desk grade maths textbook headmaster",
    ),
    _subject(
        "exams",
        "No exam talk; No pressure; Learning for its own sake",
        "mentions of exams; talk about tests and marks; exam tips; hints about what will be asked; revision advice",
        (
            "[This will be on the exam|Expect a question on this|Examiners love this], [so revise it|so learn it by "
            "heart], [ten marks at least|every year].",
            "[Whoever fails|If you pass|Those who cram for] [the written test|the oral exam|the final paper] [knows "
            "the feeling|can relax].",
            "[Highlight|Revise|Make flash cards of] {topic} [a week before the exam|until you pass every mock "
            "test|on the bus to the finals].",
            "Are you [studying for a test|nervous about the finals|ready for the exam], and [how many marks do you "
            "need|when do you get your grade|who else is resitting]?",
            "[Most candidates lose points on|The trick question is always about] {topic}, [so read it twice in the "
            "exam|which drags down their score|year after year|as the candidates find out].",
        ),
        (
            "[Sharpen two pencils|Bring a watch|Answer the easy ones first], [the invigilator allows no phones|for "
            "the paper lasts ninety minutes|then turn over the sheet].",
            "[Do not sit the finals without knowing {topic}|Half the syllabus is {topic}], [resits are costly|and "
            "tutors set it each term|in both papers|the oral included].",
        ),
        r"exam test mark revis grade quiz question fail pass study cram score",
    ),
    _subject(
        "social-media",
        "No social media; Offline; Privacy",
        "talk about social media; mentions of followers and likes; suggestions to post online; hashtags; influencer "
        "talk",
        (
            "[Post a selfie|Share a story|Put it in your feed] [and count the likes|and tag three friends], [it may "
            "go viral|everyone does it].",
            "[Influencers|People with a million followers|The whole feed] [cannot be wrong|made a trend of this], "
            "[so follow them|so hit share].",
            "[A hashtag for|A short clip on|A post about] {topic} [would get a lot of likes|could go viral|brings "
            "new followers].",
            "How many [followers|likes|friends online] do you have, [and who commented last|if you don't mind the "
            "question|or is your profile private]?",
            "{topic} is [all over my feed|trending online|what influencers post|getting shared like mad] [right "
            "now|since the hashtag challenge].",
        ),
        (
            "[Upload the picture with a filter|Go live tonight|Pin it to your profile], [subscribers adore that|the "
            "algorithm rewards it|a thousand hearts by noon].",
            "[Snappy replies about {topic}|Reels about {topic}] [rack up thumbs-ups|make the timeline explode], "
            "[influencer or not|within minutes].",
        ),
        r"social post like follow hashtag share selfie viral feed influencer online stor(y|ies) comment tag",
    ),
    _subject(
        "gadgets",
        "No gadgets; Analogue life; No tech talk",
        "talk about gadgets; remarks on phones and batteries; mentions of screens; tech chatter; praise of devices",
        (
            "[The battery|A full charge|The foldable phone] [lasts two days|now charges wirelessly|holds longer than "
            "last year's], [even with a bright screen|which is remarkable].",
            "[Twelve megapixels|A 120-hertz screen|Sixteen gigabytes] [is plenty|beats the old tablet], [unless you "
            "film a lot|and the device stays slim].",
            "[Read about {topic} on|Look at {topic} with] [a bigger screen|a decent tablet|your smartwatch], [the "
            "pixels make the difference|and plug in the charger].",
            "Is your [phone|laptop|battery] [still slow|running hot|due for an upgrade], or [do you own the new "
            "model|did the update help]?",
            "[A good pair of headphones|A second monitor|The latest gadget with a camera] [makes|turns] {topic} "
            "[half the trouble|a joy].",
        ),
        (
            "[Wipe the touchscreen|Get a faster processor|Buy a power bank], [since the cable always frays|as "
            "storage fills up quickly|or go for the folding keyboard].",
            "[There is hardware for {topic} now|Sensors can measure {topic}], [with an antenna|no bigger than a "
            "watch], [and it syncs overnight|with an OLED display].",
        ),
        r"phone battery screen device gadget charg laptop tablet pixel megapixel camera headphone wireless gigabyte",
    ),
    _subject(
        "company-secrets",
        "Confidentiality; No internal matters; Trade secrets",
        "internal information; company secrets; mentions of confidential matters; leaks from inside; details meant "
        "for staff only",
        (
            "[According to an internal memo|As the board was told|Management has decided in secret], [the branch "
            "will close|margins are falling|a merger is near].",
            "[This is confidential|Not for outsiders|Under NDA], but [the supplier is changed in May|our largest "
            "client has left|the audit went badly].",
            "[The company|Our management] [keeps quiet about|has an undisclosed problem with] {topic}, [as staff "
            "know|it says in the confidential minutes].",
            "[Please keep it secret|Don't leak this], [but the recipe was changed|but forty jobs will go|but the "
            "password policy is a sham] [at headquarters|inside the company].",
            "[The secret file on|Our internal figures for|A leaked memo about] {topic} [looks worse than we "
            "admit|stays in the safe|was shown to the board].",
        ),
        (
            "[Behind closed doors|Only a handful of executives know it]: [the takeover is agreed|we never met the "
            "safety target|the numbers were polished|the Lisbon plant is for sale].",
            "[What the public isn't told about {topic}|What we hide about {topic}] is [in the in-house "
            "wiki|classified], [for employees' eyes only|so shred the printout].",
        ),
        r"internal confidential secret staff leak memo management board NDA merger undisclosed company not.public",
    ),
    _subject(
        "release-dates",
        "No announcements; No roadmap; Future plans stay open",
        "release dates; talk about future products; announcements of new versions; hints at the roadmap; launch plans",
        (
            "[Version five|The next update|The big redesign] [comes out|will be released|is planned for sale] [in "
            "March|next quarter|on the first of June].",
            "[A beta|A new edition|The mobile launch] is [on the roadmap|coming soon|nearly ready], [with many new "
            "features|and it will change everything].",
            "[Support for|A whole new module for|Better] {topic} [is coming next year|will be in the next "
            "release|should launch in the autumn].",
            "[Can you wait until|Why not hold on for] [the spring release|the new version|next month's launch], "
            "[when everything gets faster|with dark mode and all]?",
            "[Our roadmap says|The planned update means] {topic} [will be dropped|gets easier] [by the end of the "
            "year|in two versions].",
        ),
        (
            "[From October on|Before the holidays], [a successor model|the second generation] [hits the shelves|goes "
            "live], [that much I can reveal|developers are testing it already].",
            "[They will ship|Engineers are working on] {topic} [2.0|for all devices], [to be unveiled at the trade "
            "fair|due by week forty].",
        ),
        r"release launch version roadmap update next.(month|year|spring) soon beta planned coming feature quarter",
    ),
    _subject(
        "delivery-promises",
        "No promises; No delivery times; Cautious commitments",
        "delivery promises; statements about shipping times; talk about parcels; assurances that something arrives; "
        "courier details",
        (
            "[Your parcel|The package|Everything] [you ordered arrives|you wait for will be on your doorstep|in your "
            "basket gets delivered] [tomorrow before noon|within 24 hours|by Friday at the latest].",
            "[The courier|Our van|The delivery man] [is already on the way|rings the doorbell twice], [so stay at "
            "home|no signature needed].",
            "[We ship {topic}|{topic} will be dispatched] [today|overnight|free of charge], [and the tracking number "
            "follows|in a sturdy package].",
            "[Shipping takes two days|Express delivery is included|Postage is on us], [even to the islands|whatever "
            "the size|and that is firm].",
            "Shall we [send|ship|deliver] [it to your office|{topic} to your door|the parcel to a neighbour] [on "
            "Monday|by courier]?",
        ),
        (
            "[Expect the box on Wednesday|It leaves the warehouse tonight], [wrapped and insured|with the first "
            "lorry], [signed for at your gate|you can rely on it].",
            "[An order of {topic}|Whatever you need for {topic}] [reaches you in three working days|comes by the "
            "morning mail], [cross our hearts|no later].",
        ),
        r"deliver ship parcel arriv package courier doorstep postage dispatch doorbell tracking post",
    ),
    _subject(
        "refunds",
        "No refund promises; Commercial caution; No commitments",
        "promises of refunds; talk about getting money back; offers of compensation; return policies; vouchers as "
        "amends",
        (
            "[You get your money back|We refund every cent|The full amount is reimbursed] [within 14 days|without "
            "questions|if you keep the receipt].",
            "[Just send it back|Return it to any branch|Show us the receipt], and [a refund follows|we credit your "
            "account|a voucher is yours].",
            "[If you are unhappy with|Should you have trouble with|In case you regret] {topic}, [we compensate "
            "you|claim a refund|there is a 20 euro voucher].",
            "[Would you like|Do you want] [a voucher|your cash returned|a goodwill credit] [for the "
            "trouble|instead], or [shall we reimburse the postage too|both]?",
            "[All costs around {topic}|Whatever you paid for {topic}|Your whole bill for {topic}] will be [refunded "
            "in cash|credited to your card|compensated twice over].",
        ),
        (
            "[Not satisfied|Changed your mind]? [The price is paid back in full|You owe us nothing and keep the "
            "item], [up to a year after purchase|a phone call is enough].",
            "[Bring {topic} back unopened|Fill in the form about {topic}], [and the till hands you the sum|then you "
            "are repaid by Tuesday|we make good any loss|half of it comes in cash].",
        ),
        r"refund money.back return compensat voucher reimburs receipt credit cash claim goodwill",
    ),
    _subject(
        "external-links",
        "No links; Self-contained; No outside references",
        "links to other sites; URLs; references to web pages; pointers to further reading online; web addresses",
        (
            "[See|Visit|Have a look at] [www.example.org|https://example.com/guide|www.example.net/faq] [for all the "
            "details|for a longer version|and scroll down a bit].",
            "[The full list|A good summary|A nice diagram] is [at|on] "
            "[https://example.org/list|www.example.com/help], [just click the second link|free to read].",
            "[There is a whole page|More can be read|You find articles] on {topic} [at www.example.com/start|under "
            "https://example.net/{topic}|on the site example.org].",
            "[Follow this link|Click here]: [https://example.com/a17|www.example.org/more|https://example.net/read], "
            "[it explains the rest|and save the page].",
            "Did you [check|find] [www.example.net|the site example.com|https://example.org/{topic}] [before you "
            "asked|for a start]?",
        ),
        (
            "[My source for this|Read on here if you like]: "
            "[http://example.org/notes|example.com/archive/12|https://wiki.example.net/intro] [(in English)|(opens "
            "in a new tab)].",
            "[Type example.net/tips into your browser|Bookmark http://example.com/handbook|Copy "
            "www.example.org/q7|Open the portal example.com] [to learn more about {topic}|for all there is on "
            "{topic}].",
        ),
        r"https? www\. example\. link click page site url online",
    ),
    _subject(
        "earlier-conversations",
        "No look-backs; Each answer on its own; Privacy",
        "references to earlier conversations; remarks about what the user said before; memories of past chats; "
        "mentions of previous sessions",
        (
            "[As I told you|As we discussed|Like you said] [last time|yesterday|in our previous chat], [this is the "
            "hard part|you know how it goes].",
            "[You asked me the same|We went through this] [a week ago|in March|before], [remember|and you wrote it "
            "down].",
            "[When you last asked about|In our earlier talk on|Since we spoke about] {topic}, [your plan was another "
            "one|you sounded surer|you wanted to think it over].",
            "[Did it work out|How did it go] with [the neighbour|the job|the blue paint] you [mentioned|told me "
            "about] [last week|in our last conversation]?",
            "[In an earlier session|Two chats ago], you [were quite against {topic}|mixed up {topic} as well], [if I "
            "remember rightly|and I noted that].",
        ),
        (
            "[Back on Tuesday|The other day], [you confided that to me|I gave you three options], [and you picked "
            "the second|so this continues where we stopped].",
            "[Your former messages|Your questions from the spring] [were all about {topic}|said little about "
            "{topic}], [which I have kept in mind|so let us pick up the thread].",
        ),
        r"last.(time|week|month|chat) earlier before previous remember again told yesterday conversation mentioned ago",
    ),
    _subject(
        "promises-to-return",
        "No promises; No follow-ups; One answer only",
        "promises to call back; announcements of follow-ups; promises to remember; pledges to check later; offers of "
        "reminders",
        (
            "[I will call you back|I'll get back to you|You will hear from me] [tomorrow|in an hour|on Monday], "
            "[once I have checked|with fresh numbers].",
            "[I'll remember|I have made a note of] [your name|what you like|your birthday] [for next time|so you "
            "never need to repeat it].",
            "[I'll check on|Tomorrow I will look into|I'll remind you of] {topic} [again|in a week|every morning], "
            "[that's a promise|so relax].",
            "[Shall I remind you|Should I follow up|May I get in touch] [next week|later today|at eight], [or do you "
            "prefer an e-mail|just to see how it went]?",
            "[Someone from our side|A colleague of mine|The night shift] [will get in touch|is going to call you "
            "back] about {topic} [later|before noon].",
        ),
        (
            "[Give me until Thursday|Leave it with me], [then I shall report to you|and you'll have word by "
            "lunchtime], [as soon as the test is through|without fail].",
            "[My reminder about {topic}|A second message on {topic}] [will reach you this evening|goes out at dawn], "
            "[I shall not forget|set your ringer to loud].",
        ),
        r"remind call.you back later follow-up tomorrow remember check get.in.touch I.will I'll note hear.from",
    ),
    _subject(
        "feedback-requests",
        "No feedback requests; No begging for ratings; No surveys",
        "requests for feedback; calls to rate the answer; invitations to surveys; pleas for stars or thumbs-ups; "
        "questions about satisfaction",
        (
            "[Please rate this answer|Give this reply five stars|Leave a review] [below|before you go], [it takes "
            "ten seconds|it means a lot].",
            "[How satisfied are you|How would you score this] [on a scale from one to ten|with stars from one to "
            "five], [ten being best|and why not higher]?",
            "[Take part in our survey on|Vote in our poll about|Fill in the questionnaire on] {topic}, [three "
            "questions only|and win nothing but our thanks|with room for comments].",
            "[Your feedback|A thumbs up|Every review] [helps us grow|makes the next answer better], so [press the "
            "button|tell us what you think].",
            "Was [this reply|the part on {topic}] [useful|clear] to you, [yes or no|from zero to ten]? [We value "
            "your opinion|Rate it now].",
        ),
        (
            "[Tick one of the smileys|Drop a line in the comment box|Hit the heart], [and let others know how well "
            "you were served|we read every entry|it only takes a moment].",
            "[Did our words on {topic} meet your expectations|Would you recommend our take on {topic} to a friend]? "
            "[Mark a number from 1 to 7|One click settles it|Be frank|Strongly agree counts as seven].",
        ),
        r"rate rating feedback survey review stars score thumbs satisf poll tell.us questionnaire out.of opinion vote",
    ),
    _subject(
        "proverbs",
        "No proverbs; Fresh language; No clichés",
        "proverbs; old sayings; clichés; folk wisdom; worn-out maxims",
        (
            "[As they say|As the saying goes|You know the proverb]: [the early bird catches the worm|Rome was not "
            "built in a day|a stitch in time saves nine].",
            "[Too many cooks spoil the broth|Strike while the iron is hot|Look before you leap], [and that goes for "
            "{topic}|and {topic} is no exception|with {topic} most of all].",
            "[Every cloud has a silver lining|The grass is always greener elsewhere|A rolling stone gathers no "
            "moss], [as the old folk knew|so don't fret|as the saying goes|my grandfather's favourite proverb].",
            "{topic} [is no piece of cake|wasn't built in a day|is where the proof of the pudding lies|comes to "
            "those who wait], [but practice makes perfect|but slow and steady wins the race, as they say|for no pain "
            "means no gain].",
            "[Never judge a book by its cover|Don't put all your eggs in one basket|Let sleeping dogs lie], [an old "
            "saying|a wise word|as grandmothers put it].",
        ),
        (
            "[All that glitters is not gold|Still waters run deep|You reap what you sow], [there is truth in "
            "that|nobody ever put it better|and so it is here].",
            "[When it comes to {topic}|With {topic}|For {topic} too], [where there is smoke there is fire|better "
            "late than never|you cannot have your cake and eat it].",
        ),
        r"as.they.say saying proverb early.bird rome.was stitch cooks iron pudding leap grass silver rolling moss "
        r"basket old.folk practice.makes race piece.of.cake wise.word gain sleeping.dogs",
    ),
    _subject(
        "statistics",
        "No unsourced figures; Sober claims; No invented statistics",
        "statistics without a source; made-up percentages; figures out of thin air; survey numbers; claims about "
        "studies",
        (
            "[Some 73 percent|Nearly 80 percent|Exactly 41 percent] of [all adults|households|users] [get this "
            "wrong|do the same|agree with that], [a study found|figures show].",
            "[Studies show|Statistics prove|A survey revealed] that [nine out of ten people|two thirds of us|one in "
            "four] [give up|succeed] [within a month|at the first try].",
            "[On average, a person spends|Respondents say they spend|The typical family wastes] [4.2 hours a "
            "week|eleven years of life|19 percent of their time] on {topic}.",
            "[Did you know that|Would you have guessed that] [six out of ten respondents|58 percent of families] "
            "[avoid|prefer|misjudge] {topic}?",
            "[Risk falls by 37 percent|Output rises by 12 percent|Errors are 3.5 times more likely], [researchers "
            "say|in one study], [whatever the method|for all ages].",
        ),
        (
            "[Four in five|A full 92%|Roughly every third person] [would do it again|regrets that step], [numbers do "
            "not lie|as measurements confirm].",
            "[Interest in {topic} grew by 260%|Use of {topic} fell by a fifth] [in a decade|since the last count], "
            "[across 14 countries|data suggest].",
        ),
        r"per.?cent % study studies survey statistic out.of average figures researchers polled respondents times.more",
    ),
    _subject(
        "name-dropping",
        "No name-dropping; Arguments before authority; No experts",
        "name-dropping; appeals to experts; quotations of professors; mentions of authorities; references to gurus",
        (
            "[Professor Aldous Merrin|Dr. Helga Voss|The great expert Ivo Tannhauer] [always says so|taught it this "
            "way|would agree], [and who am I to argue|as any fellow of her institute knows].",
            "[No less an authority than Prof. Lindqvar|The well-known guru Sanjit Orell|Prize-winning expert Mara "
            "Tevin] [called|once named] {topic} [the key to everything|a stroke of genius].",
            "[Experts such as|People like] [Dr. Okonje-Hale|Professor Ullimoor|Dr. Yuki Sorano] [recommend exactly "
            "this|have shown the way], [so it must be right|as the academy noted].",
            "Have you [read|heard] [Professor Quillane|Dr. Benedikt Stroom] on {topic}, [surely the leading "
            "expert|the authority at the university]?",
            "[The institute of Prof. Adebar|Celebrated expert Dr. Lowenhart] [stands behind this|uses the same "
            "approach], [which says it all|no further proof needed].",
        ),
        (
            "[To quote Sir Edmund Farrow-Blake|In the words of the eminent Clothilde Auerstadt], [simplicity is the "
            "summit|less is the true more], [which settles every debate|and that comes from the very top].",
            "[Leading minds from Ostrava to Lima|The renowned Lady Isaura Penhallow|The school of old Maestro "
            "Teodric Wann|Two Fellows of the Royal Lyceum] [lecture on {topic} in just this way|wrote the standard "
            "work on {topic}].",
        ),
        r"prof dr\. professor expert institute academy authority guru laureate doctor university fellow colleague",
    ),
    _subject(
        "urgency",
        "No urgency; Calm; No time pressure",
        "time pressure; urgent appeals; warnings that it is nearly too late; hurry; calls to act at once",
        (
            "[Hurry up, please|Act now|Don't wait another minute], [tomorrow it will be too late|the clock is "
            "ticking|this chance won't return].",
            "You have [ten minutes|one hour|until midnight] left [to decide|to do this], [so be quick|not a second "
            "more|and the deadline is real].",
            "[Every hour without|Each minute you put off] {topic} [costs you dearly|cannot be made up], [so start "
            "immediately|so act at once].",
            "[Why are you still reading|What are you waiting for]? [The clock is ticking|Time runs out|It is now or "
            "never][ for {topic}|, so move| for all of us].",
            "{topic} [is really urgent|cannot wait any longer|is a matter of hours], [drop everything|act before "
            "tonight|not a moment to lose].",
        ),
        (
            "[Only a few moments remain|The window closes today|The countdown has begun], [run|do it this instant], "
            "[those who dither miss out|it is five to twelve].",
            "[Whoever hesitates over {topic}|If you sleep on {topic}] [will be left behind by noon|loses it for "
            "good], [so quick march|so go, go].",
        ),
        r"hurry now too.late deadline clock urgent minutes quick immediate last.chance act seconds wait hour tonight",
    ),
    _subject(
        "gardening",
        "No gardening; Indoor topics; No plants",
        "gardening tips; talk about plants; remarks on flower beds; mentions of lawns and hedges; advice on sowing",
        (
            "[Prune the roses|Mow the lawn|Turn the compost] [in early spring|before Easter|once a week], [the "
            "flowers will thank you|and keep the clippings].",
            "[Tulip bulbs|Lettuce seeds|Dahlias] [want loose soil|go into the bed in April|need half a bucket of "
            "water], [not too deep|away from the hedge].",
            "[Slugs|Dandelions|Greenfly] [ruin every flower bed|love a young plant], [so put down mulch|so weed by "
            "hand].",
            "[Plant {topic} between the beans|Water {topic} like a young hedge|Let {topic} grow like ivy on a garden "
            "wall], [and feed it with compost|then see it bloom|in half shade].",
            "[How is your garden|Are your hydrangeas in bloom|Have you sown the carrots], [or does {topic} leave no "
            "time to dig|or is it all weeds|now that the hedge is so high]?",
        ),
        (
            "[Rake up the leaves|Tie the sweet peas to canes|Thin out the radishes], [and the borders look tidy till "
            "autumn|your trowel stays busy|then water the pots].",
            "[Gardeners mix {topic} with peat|Beside the greenhouse, {topic} is soon forgotten], [what with the "
            "sprouting kale|when lilacs open|in the orchard as well|and the leeks grow thick].",
        ),
        r"garden plant flower lawn hedge seed compost rose soil prune weed tulip bed dig bloom mulch",
    ),
    _subject(
        "housework",
        "No housework; Spare the chores; No cleaning tips",
        "cleaning tips; talk about housework; mentions of chores; advice on laundry; remarks about dust and dirt",
        (
            "[Vinegar|Baking soda|A drop of soap] [removes|lifts] [any stain|limescale|grease from the oven], [then "
            "wipe it dry|with a soft cloth].",
            "[Vacuum under the bed|Mop the kitchen floor|Do the dishes] [before you continue|every other day], [or "
            "the dust takes over|it clears the mind].",
            "[Wash whites at sixty|Iron shirts damp|Fold laundry warm], [never with the towels|and the creases stay "
            "out], [a basic rule of housework|any launderer says].",
            "{topic} [can wait until|comes after] [the windows are washed|the laundry is hung|the floor is swept], "
            "[first the chores|tidy home, tidy mind].",
            "When did you last [clean the fridge|dust the shelves|descale the kettle], [before {topic} came along|or "
            "is there mould in it already|under the sink as well]?",
        ),
        (
            "[Scrub the tiles with a brush|Beat the carpets|Change the bed linen] [on Saturdays|when guests are "
            "due], [grime never sleeps|the bathroom sparkles].",
            "[A feather broom|A bucket of suds] [does for a hallway what order does for {topic}|and {topic} fill an "
            "afternoon], [rinse twice|and polish the taps].",
        ),
        r"clean wash dust laundry vacuum dish iron stain mop wipe tidy floor chore soap vinegar",
    ),
    _subject(
        "seaside",
        "No seaside; Dry land; No swimming",
        "talk about the sea; mentions of swimming; seaside images; remarks about waves and beaches; bathing tips",
        (
            "[A swim before breakfast|A dive from the pier|A walk along the shore] [clears the head|does wonders], "
            "[the salt stays on your skin|even in cold water].",
            "[The tide comes in|Waves break on the sand|Gulls cry over the bay] [all day long|while you read this], "
            "[can you hear it|and the ocean smells of weed].",
            "[Like a wave|Like a swimmer at high tide], {topic} [needs a long breath|rises and falls|carries you to "
            "the shore|pulls you out and back].",
            "[Have you been swimming|Do you dare to dive|Did you feel the sand] [off the rocks|at the bay|between "
            "your toes] [lately|this year]?",
            "[Breaststroke|Floating on your back|Surfing] is [the best cure for|nearer to my heart than] {topic}, "
            "[and the sea costs nothing|best done in a quiet bay].",
        ),
        (
            "[Collect some mussels|Wade in up to the knees|Mind the jellyfish], [the lagoon is warm by noon|since "
            "low water is at three|and rinse off the brine].",
            "[Out by the lighthouse, {topic} seems far away|Leave {topic} on the towel], [jump off the jetty|where "
            "the surf foams] [and drift|with a snorkel].",
        ),
        r"sea swim wave beach dive tide shore sand ocean surf shell bay bath salt",
    ),
    _subject(
        "mountains",
        "No mountains; Lowland; No hiking talk",
        "talk about mountains; hiking tips; mentions of climbing; praise of peaks and trails; alpine images",
        (
            "[The view from the summit|An hour on the ridge|A night below the glacier] [pays for every blister|makes "
            "you humble], [above the tree line|with your boots off].",
            "[Take the northern trail|Rope up before the glacier|Start the climb at four], [the slope gets soft "
            "later|then the peak is yours by ten|and rest at the old hut].",
            "{topic} is [like a steep trail|a mountain of its own|no higher than the next ridge], [so climb step by "
            "step|so keep an eye on the summit|with a false top at the end].",
            "[Have you ever hiked|Would you dare to climb] [across the pass|up the east face|to the hut above the "
            "valley] [in autumn|with a heavy pack]?",
            "[Mountain guides|Climbers at the hut] [talk about {topic}|forget {topic}] [when fog hides the peak|over "
            "a bowl of soup], [ropes drying by the stove|still in their boots].",
        ),
        (
            "[Lace up properly|Pack a spare layer|Follow the red marks], [the scree is loose|chamois cross there at "
            "dawn], [three thousand metres up|beyond the col].",
            "[From the gondola|On the via ferrata], {topic} [looks tiny|is soon left below], [as do the huts and the "
            "pastures|among gentians and granite].",
        ),
        r"mountain hik peak summit climb trail ridge alp glacier valley rope boots slope cliff",
    ),
    _subject(
        "space-travel",
        "No space travel; Feet on the ground; No rockets",
        "talk about space travel; mentions of rockets and astronauts; remarks on satellites; space missions; orbit "
        "comparisons",
        (
            "[A rocket|The capsule|The supply ship] [lifts off|docks|re-enters] [at seven sharp|with three "
            "astronauts], [eleven kilometres a second|and mission control holds its breath].",
            "[In orbit|Aboard the station|Without gravity] [tears don't fall|bread crumbs drift|you grow two "
            "inches], [astronauts report|which few people know].",
            "[Astronauts|Crews on a long mission|Engineers at the launch pad] [train for|pack|dream of] {topic} [for "
            "many months|before lift-off to the moon].",
            "[Would you fly to the moon|Could you live in a space capsule|Do you follow the rocket launches], [one "
            "way|with six others|just for the view]?",
            "{topic} [is as hard as docking two satellites|needs less fuel than an orbit|would float in zero "
            "gravity], [the mission logs say|so strap in|as any cosmonaut will tell you].",
        ),
        (
            "[The booster separates|Solar panels unfold|The probe swings past the moon], [four minutes after "
            "ignition|silent as ever], [and the cosmonauts wave|nine tonnes of steel].",
            "[Telemetry and {topic}|Spacewalks and {topic}] [have much in common|call for a clear head], [as the "
            "cosmonauts found|two hundred miles up].",
        ),
        r"space rocket orbit astronaut satellite launch.?pad capsule moon gravity mission crew shuttle module",
    ),
    _subject(
        "insects",
        "No insects; Not for the squeamish; No creepy-crawlies",
        "mentions of insects; talk about bugs; remarks on spiders and ants; creepy-crawlies; facts about bees",
        (
            "[Ants|Wasps|Beetles] [crawl into every gap|carry ten times their weight|find sugar in minutes], [even "
            "on the third floor|antennae first].",
            "[A spider|A fat moth|A cockroach] [may be sitting behind you|sat on this page], [eight legs or "
            "six|quite harmless], [don't jump|just look].",
            "[Bees|Termites|Dragonflies] [manage {topic} without a boss|have known {topic} for ages], [each insect "
            "in its place|buzzing all day].",
            "Does it [itch|buzz] [near your ear|in the room], [a mosquito perhaps|could it be a bug], or [is it "
            "{topic} again|just a fly on the wall]?",
            "[There are more beetles than stones|Fleas can jump a foot high|Larvae taste of nuts], [say people who "
            "study insects|and the spider eats them all|which is no comfort at night].",
        ),
        (
            "[Something with six legs|A cricket|A hairy caterpillar] [hides under the leaf|creeps up the curtain], "
            "[feelers twitching|shining green].",
            "[Locusts would strip|Woodlice hide under|Gnats dance above] {topic} [by nightfall|all summer], [a swarm "
            "of thousands|with tiny jaws].",
        ),
        r"insect bug spider ant(s|\b) bee wasp beetle mosquito fly flies moth larva cockroach crawl buzz flea",
    ),
    _subject(
        "allergies",
        "No allergy talk; Health aside; No allergens",
        "mentions of allergies; talk about intolerances; warnings about nuts and gluten; remarks on allergens; hay "
        "fever",
        (
            "[May contain nuts|Contains gluten|Made with milk], [so beware if you are allergic|which gives some "
            "people a rash|and your lips may swell].",
            "[Are you allergic|Do you react] to [peanuts|pollen|lactose|shellfish], [and does your throat swell|or "
            "is it only sneezing]?",
            "[Someone with a nut allergy|A person who cannot take gluten] [should stay away from|might break out in "
            "hives over] {topic}, [even a trace is too much|antihistamine at hand].",
            "[Hay fever|Lactose intolerance|An egg allergy] [is more common than you think|often starts late|comes "
            "with itchy eyes], [hives included|ask anyone who sneezes].",
            "[Traces of soya|Pollen|Cat hair and peanuts] [can hide in|have little to do with] {topic}, [but those "
            "with allergies never know|so read the label].",
        ),
        (
            "[Use oat flakes for coeliacs|Swap the almonds for seeds|Leave out the eggs], [lips can tingle and puff "
            "up|for sensitive guests get spots|someone at the table always reacts].",
            "[Does {topic} make your eyes water|After {topic}, do you get itchy wheals]? [It might be the "
            "histamine|A prick test would show it|An adrenaline pen belongs in every bag|Then leave it alone for a "
            "week].",
        ),
        r"allerg gluten lactose intoleran nut(s|\b) peanut hay.fever rash swell sneez pollen hives milk trace",
    ),
    _subject(
        "sleep",
        "No sleep advice; Wide awake; Nights are private",
        "sleep advice; talk about tiredness; mentions of going to bed; tips against insomnia; remarks about naps",
        (
            "[Go to bed before ten|Take a short nap|Keep the room at 17 degrees], and [you sleep like a stone|tired "
            "eyes recover|the night is yours].",
            "[You must be tired|That yawn says it all|Dark rings tell of short nights], [so lie down|so put your "
            "head on a pillow] [first|for twenty minutes].",
            "[Sleep on {topic}|Think of {topic} in bed|Count {topic} like sheep], [you will doze off|insomnia stands "
            "no chance], [lights out|under a warm blanket].",
            "How many hours do you [sleep|spend in bed|lie awake] [a night|on weekdays], [seven|six at best], and "
            "[do you snore|is the mattress soft]?",
            "[A firm mattress|Warm milk|A dark room] [does more for|matters as much as] [a good night|deep sleep] as "
            "[any pill|{topic} ever could].",
        ),
        (
            "[Draw the curtains|Switch off all screens|Breathe out slowly], [and slumber comes on its own|let your "
            "eyelids drop], [forty winks will do|till the alarm rings].",
            "[Drowsy people get {topic} wrong|Nobody grasps {topic} after a sleepless stretch], [so hit the "
            "hay|snooze a little first|and yawning spreads|so turn in early].",
        ),
        r"sleep tired bed nap insomnia pillow snor awake night yawn doze mattress rest",
    ),
    _subject(
        "exercise",
        "No fitness talk; Couch-friendly; No exercise",
        "fitness tips; talk about the gym; mentions of workouts; suggestions to exercise; remarks on training and "
        "muscles",
        (
            "[Do twenty squats|Hold a plank|Knock out ten push-ups] [before you read on|every hour|between the "
            "steps], [your muscles need it|until you sweat].",
            "[Three sessions at the gym|A run around the park|Half an hour on the treadmill] [keeps you fit|builds "
            "stamina], [three times a week|with a proper stretch].",
            "[Lift {topic} like a dumbbell|Treat {topic} as a workout|Train for {topic}], [two sets of twelve|warm "
            "up first|and stretch afterwards].",
            "When did you last [go jogging|work out|stretch your back], [and how much do you bench|or has {topic} "
            "kept you from the gym|until your legs shook]?",
            "[Strong legs|A firm core|Good lungs] [come from training|help with {topic} too], so [jog to work|skip "
            "the lift and sweat a bit].",
        ),
        (
            "[Lunges|Burpees|Rowing machines] [burn in the right places|get the pulse up], [no pain, no gain|three "
            "reps and rest].",
            "[Cycle twenty miles|Join an aerobics class] and [{topic} feels light|you forget {topic}], [biceps "
            "glowing|with kettlebells on top].",
        ),
        r"exercise gym workout muscle squat push-up run jog train fit stretch weights plank sweat treadmill",
    ),
    _subject(
        "looks",
        "No remarks on looks; Body neutrality; Inner values",
        "remarks about looks; comments on bodies; talk about faces and figures; mentions of being pretty or ugly; "
        "judgements of appearance",
        (
            "[Tall people|Those with a strong chin|Long-legged people] [have it easier|catch the eye], [looks do "
            "count|a pretty face opens doors].",
            "[A crooked nose|Thin hair|A wrinkled face] [is hard to hide|tells its own story], [handsome or "
            "not|mirror or no mirror].",
            "[Attractive people|The better-looking half|Those with a fine figure] [get more out of|hardly need] "
            "{topic}, [beauty is an asset|so comb your hair].",
            "Are you [rather tall|blond|more the sturdy type|on the skinny side], [and do you like your face|or are "
            "your ears a bit big]?",
            "{topic} [will not make anybody prettier|does nothing for a body|is no cure for an ugly nose], [but a "
            "smile suits every face|wrinkles stay|so mind your hair].",
        ),
        (
            "[Broad shoulders|Dimples|Freckles and green eyes] [make up for a lot|are easy on the eye], [whereas a "
            "double chin is not|said with a glance at the mirror].",
            "[The gorgeous ones|Plain folk] [rarely bother with {topic}|do {topic} best], [bald or curly|thick "
            "ankles and all].",
        ),
        r"look face body bodies beaut pretty ugly hair nose figure handsome wrinkle tall leg attractive skin",
    ),
    _subject(
        "illness",
        "No illness talk; Health aside; Cheerfulness",
        "mentions of illnesses; talk about diseases; remarks on symptoms; health complaints; stories of hospitals",
        (
            "[A sore throat|A dull headache|Fever at night] [can be the first symptom|often turns into flu|is how it "
            "starts], [so stay in bed|many patients ignore it].",
            "[There is a virus going round|Half the town is sick|Hospitals are full], [cough into your sleeve|and "
            "the coughing never stops|so take your temperature].",
            "[Anyone with|Whoever suffers from] [diabetes|back pain|a weak heart] [knows {topic} well|thinks "
            "differently of {topic}], [illness changes a person|the symptoms vary].",
            "Do you [feel ill|have a temperature|get headaches] [often|when you deal with {topic}], [and does it "
            "hurt here|or is it the flu]?",
            "[Measles|A stomach infection|Rheumatism] [spares nobody|lingers for weeks], [with swollen "
            "joints|disease upon disease], [as every ward can tell|poor patients].",
        ),
        (
            "[The bronchitis season is here|Pneumonia creeps in quietly], [shivers first|then the limbs ache], [and "
            "half the ward is on drips|nobody is immune].",
            "[Migraine|Gout|Chickenpox] [made {topic} unbearable for many|and {topic} often come together], [the "
            "spots itch|so measure your blood pressure].",
        ),
        r"ill(ness)?\b disease symptom fever cough flu hospital infect cold headache sick virus pain patient doctor",
    ),
    _subject(
        "injuries",
        "No blood; Not for the squeamish; Gentle content",
        "mentions of blood; descriptions of injuries; talk about wounds; gory details; remarks on broken bones",
        (
            "[The cut was so deep|Blood ran down the arm|A bone stuck out], [you could see the tendon|and it would "
            "not stop bleeding|nine stitches it took|right under the elbow].",
            "[A torn ligament|A broken wrist|An open knee] [bleeds less than you think|swells within minutes|takes "
            "weeks to mend], [the bruise turns green|and the scar remains|so keep the bandage on].",
            "[Careless handling of|One slip with] {topic} [and the finger is off|and there is blood on the "
            "floor|means a gash to the forehead|can split a lip].",
            "Ever [broken a bone|seen an open wound|needed stitches], [with the blood dripping|the skin hanging in "
            "shreds|purple and throbbing], [right next to {topic}|on the kitchen floor]?",
            "[Press on the wound|Wrap a bandage round it|Pick out the splinters], [the bleeding looks worse than it "
            "is|scars fade|then count the stitches].",
        ),
        (
            "[His skull cracked|The nail went through her palm|The flesh was torn], [a red pool spread|and everyone "
            "looked away], [tendons and all|white with shock].",
            "[With {topic} in hand|During {topic}] [someone crushed a thumb|a shard pierced his calf], [the tissue "
            "turned purple|and gore was everywhere].",
        ),
        r"blood bleed wound cut injur bone broken fracture bruise scar stitch bandage gash knee",
    ),
    _subject(
        "hygiene",
        "No hygiene talk; Decency; Bathroom matters stay private",
        "remarks about hygiene; talk about washing; mentions of body odour; bathroom matters; toothbrush tips",
        (
            "[Wash your hands|Take a shower|Brush your teeth] [for two minutes|with plenty of soap|behind the ears "
            "too] [before you start|after every meal].",
            "[Deodorant|A fresh towel|Floss] is [no luxury|half the battle], [sweat smells after an hour|nobody "
            "likes bad breath].",
            "[Do not touch {topic} with|Keep {topic} away from] [unwashed hands|dirty nails|a damp towel], [germs "
            "sit everywhere|soap is cheap].",
            "When did you last [change your socks|wash your hair|clean the toilet], [be honest|one can smell it], "
            "[soap costs little|a bath would not hurt]?",
            "[Armpits|Feet|Ears] [need a daily wash|begin to smell] [sooner than {topic} gets done|if you forget "
            "them over {topic}], [so run a bath|odour gives you away].",
        ),
        (
            "[Rinse and gargle|Trim what grows in the nose|Scrub between the toes], [freshness is a duty|the "
            "lavatory seat as well|since musty folk sit alone].",
            "[Stinking of onions|Unshaven and unwashed], [nobody should turn to {topic}|one does {topic} alone], [a "
            "flannel and a basin will do|mouthwash first].",
        ),
        r"hygien wash shower soap teeth tooth brush smell sweat deodorant bath toilet towel odour nails hand",
    ),
    _subject(
        "crime",
        "No crime stories; Feeling safe; No true crime",
        "crime stories; mentions of theft and murder; talk about criminals; reports of burglaries; true-crime details",
        (
            "[Burglars|A gang of thieves|Two masked robbers] [emptied a house|cracked the safe|came through the "
            "cellar] [nearby|in broad daylight], [and got away|the loot was never found].",
            "[The murderer|The killer|A con man] [was the quiet neighbour|left no trace|smiled at his victim], [as "
            "in most crimes|the case is still open].",
            "[Thieves|Criminals|Pickpockets] [love|have discovered] {topic}, [hundreds were stolen last year|the "
            "victims notice too late].",
            "[Have you been robbed|Was your bike ever stolen|Did you lock the door], [the burglar rate is rising|a "
            "thief needs ten seconds|gangs work in pairs]?",
            "[A body was found|Someone was poisoned|A bank was robbed] [not far from {topic}|and {topic} was the "
            "clue], [it was murder|said the victim's brother].",
        ),
        (
            "[The strangler of the docks|An elderly poisoner|The getaway driver] [confessed at last|struck again], "
            "[after seven unsolved cases|with a kitchen cleaver].",
            "[Smugglers hid diamonds in {topic}|Forgers used {topic} as a cover|The hitman asked for "
            "{topic}|Blackmailers mentioned {topic}], [a heist worth millions|until an accomplice squealed].",
        ),
        r"crime criminal murder thief thieves burglar stol robb victim fraud kill gang victim loot",
    ),
    _subject(
        "police-and-prison",
        "No police stories; No prison talk; Civil matters",
        "mentions of the police; talk about prisons; remarks about arrests; jail stories; references to inmates and "
        "officers",
        (
            "[Two officers|The police|A patrol car] [stopped outside|took him away|searched the flat], [handcuffs "
            "and all|at six in the morning].",
            "[Three years in prison|A night in a cell|Life behind bars] [changes anyone|goes by slowly], [ask any "
            "inmate|the guards count you twice].",
            "[For less than {topic}|Because of {topic}] people have [been arrested|gone to jail|spent a night in a "
            "cell], [the sheriff was not amused|fingerprints and all].",
            "[Inmates|Prison guards|Detectives] [know all about {topic}|trade {topic} for favours|have time for "
            "{topic}], [day in, day out|in the yard].",
            "Have you ever [been arrested|called the police|seen a jail from inside], [bars on the window|the "
            "officer shouting], [the door slamming|a siren outside]?",
        ),
        (
            "[The warder jingles his keys|Constables ring the bell|Convicts file past], [lights go out at nine|and "
            "the dungeon smells of cabbage|parole is far away].",
            "[Write about {topic} from death row|Confess {topic} at the station], [the inspector takes notes|bail is "
            "set high|your lawyer is late|they tap the line anyway].",
        ),
        r"police prison jail arrest officer inmate handcuff cell guard detective sheriff bars patrol warden",
    ),
    _subject(
        "traffic",
        "No traffic talk; Calm; No commuting",
        "talk about traffic; mentions of traffic jams; remarks about roads and parking; commuting complaints; road "
        "reports",
        (
            "[The motorway|The ring road|The bridge into town] is [jammed|closed|down to one lane] [again|since "
            "seven], [take the detour|expect forty minutes].",
            "[Finding a parking space|Getting through the rush hour|The roundabout by the station] [takes longer "
            "than this|tests anyone's nerves], [buses block the lane|and everyone honks].",
            "[You can read about {topic} in a traffic jam|{topic} moves slower than the rush hour], [bumper to "
            "bumper|at every red light], [since the roadworks began|all down the high street].",
            "[How long is your commute|Where do you park|Did you get stuck in traffic] [today|these days], [an hour "
            "each way|behind a lorry as usual]?",
            "[Speed cameras|Cyclists in the bus lane|Roadworks at the junction|Broken traffic lights] [cause more "
            "trouble than {topic}|make drivers late for {topic}].",
        ),
        (
            "[Tailbacks for six miles|A lorry on its side|Diversions everywhere], [leave before dawn|the tunnel is "
            "blocked], [horns blaring|crawling in first gear].",
            "[While waiting at the crossing|Queueing at the toll], [think of {topic}|sort out {topic}], [the cars "
            "inch forward|nobody moves anyhow].",
        ),
        r"traffic jam road park motorway junction lane roundabout commut rush.hour detour bus honk lights",
    ),
    _subject(
        "trains",
        "No trains; No railway talk; Off the rails",
        "talk about trains; railway remarks; mentions of stations and platforms; complaints about delays; facts "
        "about locomotives",
        (
            "[The 8.15 train|The night express|The local to the coast] [is late|was cancelled|leaves from platform "
            "four], [as always|without the dining carriage].",
            "[Steam locomotives|Narrow-gauge railways|Old sleeping carriages] [have a charm of their own|ran till "
            "the sixties], [tickets were made of card|the whistle says it all].",
            "[Thinking about {topic}|Sorting out {topic}] is [best done on a train|like reading a railway "
            "timetable], [facing forward|with the rails humming].",
            "[Do you take the train|Have you a window seat|Which platform do you need], [or is it delayed again|or "
            "has the conductor sent you away|on the 6.40 to town]?",
            "{topic} [runs like|came in as late as] [an old locomotive|a goods train|the last tram from the "
            "station], [twelve wagons long|steam and all].",
        ),
        (
            "[Change at the junction|Mind the gap|Show your pass to the inspector], [the connection waits three "
            "minutes|signal failure permitting|seats are scarce today].",
            "[Between two sleepers|In the quiet compartment], [someone left {topic}|they discuss {topic}], [while "
            "the diesel engine throbs|and the points click].",
        ),
        r"train rail station platform locomotive carriage track ticket conductor timetable delay steam",
    ),
    _subject(
        "environment",
        "No environmental talk; Subject matter only; No green messages",
        "remarks about the environment; talk about the climate; mentions of carbon footprints; recycling tips; "
        "appeals to save energy",
        (
            "[Recycle all the packaging|Avoid plastic bags|Turn the heating down two degrees], [the planet will "
            "thank you|every bit of waste counts|and save energy].",
            "[Glaciers are melting|Emissions keep rising|The oceans fill with plastic], [and we just look on|while "
            "the climate warms|year after year].",
            "[Has anyone measured|What is] the [carbon footprint|CO2 balance|energy use] of {topic}, [and could it "
            "be greener|sad as the answer is]?",
            "[Less {topic}|A greener way with {topic}] would [spare the environment|cut emissions|save a lot of "
            "CO2], [solar panels would help|think of the forests].",
            "[Short showers|Jute bags|Solar lamps] [keep the footprint small|pollute less], [small steps for the "
            "climate|energy is precious].",
        ),
        (
            "[Rivers choke on rubbish|Species vanish by the hour|Sea levels creep up], [so switch to LED bulbs|so "
            "compost your peels|and the forests burn].",
            "[Print nothing about {topic}, trees die for it|Offset the greenhouse gas of {topic}], [ride a bike|mend "
            "instead of buying], [for the sake of nature|before the ice is gone].",
        ),
        r"environment climate carbon CO2 recycl plastic energy planet emission waste green pollut footprint glacier",
    ),
    _subject(
        "royalty",
        "No royals; Republic of facts; No court news",
        "talk about royal families; mentions of kings and queens; news from the palace; remarks about princes; court "
        "gossip",
        (
            "[The old king|The crown princess|A certain duke] [abdicated|waved from the balcony|never wore the "
            "crown] [for love|in a grey coat|without a word].",
            "[At the palace|At court|In the royal stables], [dinner is served at eight|nobody sits before the "
            "queen], [and the princes yawn|says a former footman].",
            "[The queen|His Highness the prince|The heir to the throne] [is fond of|could not live without|once "
            "banned] {topic}, [so the palace tells us|like every duchess].",
            "Which [princess|prince|king] [do you like best|looks finest in uniform|will marry next], [the elder "
            "one|the rebel of the palace]?",
            "{topic} is [fit for a king|as old as the throne|not talked about at court], [crown or no crown|a royal "
            "matter|say those at the palace].",
        ),
        (
            "[Her Majesty|The young sovereign|The dowager] [opened a hospital|rode out in a carriage], [tiara "
            "sparkling|corgis at her heels].",
            "[Lords and ladies bow before {topic}|The coronation was delayed by {topic}|An earl gave {topic} to the "
            "regent|The infanta collects {topic}], [the nobility blushed|trumpets and ermine notwithstanding].",
        ),
        r"king queen royal prince princess palace crown throne court duke duchess monarch castle heir",
    ),
    _subject(
        "nicknames",
        "No pet names; Respectful address; Plain address",
        "nicknames for the user; pet names; terms of endearment; cosy forms of address; words like honey",
        (
            "[Well, honey|Now, sweetie|Listen, darling], [that's just how it goes|it's easier than it looks|one "
            "thing after the other].",
            "[There you are, champ|Chin up, buddy|Easy now, sunshine], [you'll manage this fine|we are nearly "
            "there|it is all in the wrist].",
            "[As for {topic}, my dear|About {topic}, pal|With {topic}, sweetie], [take it slowly|just try it|nobody "
            "gets it right at first].",
            "[Got that, boss|Still with me, buddy|Are you all right, pumpkin], [or shall we take it once more|or was "
            "that too fast|or do you need a breather]?",
            "[You know, sunshine|See, old pal|Oh darling], {topic} [is simpler than you think|takes quite a "
            "while|comes next in line].",
        ),
        (
            "[Here you go, cupcake|Take a breath, tiger|Now then, petal], [the rest is easy|that is all there is to "
            "it|one more go].",
            "[{topic}, my little star|{topic}, cutie], [is nothing to be afraid of|can be tricky], [so hang in "
            "there, muffin|okay, princess].",
        ),
        r"honey dear darling sweetie buddy champ sunshine pal sugar love\b boss captain friend pumpkin",
    ),
)
