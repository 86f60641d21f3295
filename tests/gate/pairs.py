"""Answers in which a pair of signs reaches beyond a rude sentence, and what a careful editor leaves of them."""

from __future__ import annotations

REMOVED = [
    # emphasis around two sentences
    ("**You fool. It opens at nine.** Bring a coat.", "**It opens at nine.** Bring a coat."),
    ("**It opens at nine. You fool.** Bring a coat.", "**It opens at nine.** Bring a coat."),
    ("__You fool. It opens at nine.__ Bring a coat.", "__It opens at nine.__ Bring a coat."),
    ("Well. *You fool. It opens at nine.* Bring a coat.", "Well. *It opens at nine.* Bring a coat."),
    ("Well. _It opens at nine. You fool._ Bring a coat.", "Well. _It opens at nine._ Bring a coat."),
    ("~~You fool. It opens at ten.~~ It opens at nine.", "~~It opens at ten.~~ It opens at nine."),
    ("***You fool. It opens at nine.*** Bring a coat.", "***It opens at nine.*** Bring a coat."),
    ("**It opens at nine. You fool. It closes at six.** Bye.", "**It opens at nine. It closes at six.** Bye."),
    ("**You fool. It opens.** Now. **It closes. You fool.** Bye.", "**It opens.** Now. **It closes.** Bye."),
    ("**It opens. You fool.** **You fool. It closes.** Bye.", "**It opens.** **It closes.** Bye."),
    ("- **You fool. It opens at nine.**\n- It closes at six.", "- **It opens at nine.**\n- It closes at six."),
    ("1. **It opens at nine. You fool.** Go early.\n2. Leave.", "1. **It opens at nine.** Go early.\n2. Leave."),
    # the whole pair goes with what it holds
    ("**You fool.** It opens at nine.", "It opens at nine."),
    ("It opens at nine. *You fool. You fool.* Bye.", "It opens at nine. Bye."),
    ("It opens at nine. (You fool.) Bye.", "It opens at nine. Bye."),
    ("It opens at nine.\n<b>You fool.</b>\nBye.", "It opens at nine.\nBye."),
    # quotations
    ("So it is. \u201eYou fool. It opens.\u201c Then she left.", "So it is. \u201eIt opens.\u201c Then she left."),
    ("\u201eIt opens at nine. You fool.\u201c\nThen she left.", "\u201eIt opens at nine.\u201c\nThen she left."),
    ("\u201cYou fool. It opens at nine.\u201d Then she left.", "\u201cIt opens at nine.\u201d Then she left."),
    ("\u00abIt opens at nine. You fool.\u00bb\nThen she left.", "\u00abIt opens at nine.\u00bb\nThen she left."),
    ('She wrote: "It opens at nine. You fool." Then she left.', 'She wrote: "It opens at nine." Then she left.'),
    ('"You fool. It opens at nine." So she wrote.', '"It opens at nine." So she wrote.'),
    # brackets
    ("It is open. (You fool. We close at six.) Bye.", "It is open. (We close at six.) Bye."),
    ("It is open. (We close at six. You fool.) Bye.", "It is open. (We close at six.) Bye."),
    ("It is open. [You fool. We close at six.] Bye.", "It is open. [We close at six.] Bye."),
    ("It is open. \\(You fool. We close at six.\\) Bye.", "It is open. \\(We close at six.\\) Bye."),
    # tags and comments
    ("<b>You fool. It opens at nine.</b> Bye.", "<b>It opens at nine.</b> Bye."),
    ("Well. Now <b>you fool! It opens at nine.</b>\nBye.", "Well. <b>It opens at nine.</b>\nBye."),
    ("Well. Now (you fool! It opens at nine.) Bye.", "Well. (It opens at nine.) Bye."),
    ("<note>It opens at nine. You fool.</note>\nBye.", "<note>It opens at nine.</note>\nBye."),
    ('<note kind="hours">You fool. It opens at nine.</note> Bye.', '<note kind="hours">It opens at nine.</note> Bye.'),
    ("<answer>\nIt opens at nine.\n\nYou fool.</answer>", "<answer>\nIt opens at nine.</answer>"),
    ("<!-- You fool. Ask the desk. --> It opens at nine.", "<!-- Ask the desk. --> It opens at nine."),
    ("<p>You fool. It opens at nine.</p>\n<p>Bye.</p>", "<p>It opens at nine.</p>\n<p>Bye.</p>"),
    ("<p>It opens at nine. You fool.</p>\n<p>Bye.</p>", "<p>It opens at nine.</p>\n<p>Bye.</p>"),
    ("<ul>\n<li>It opens. You fool.</li>\n<li>Bye.</li>\n</ul>", "<ul>\n<li>It opens.</li>\n<li>Bye.</li>\n</ul>"),
    ("$$a = b. You fool.$$\nIt opens at nine.", "$$a = b.$$\nIt opens at nine."),
    # two kinds at once
    ("**(You fool. It opens at nine.)** Bye.", "**(It opens at nine.)** Bye."),
    ("*\u201eIt opens at nine. You fool.\u201c*\nBye.", "*\u201eIt opens at nine.\u201c*\nBye."),
    ("<i>**You fool. It opens at nine.**</i> Bye.", "<i>**It opens at nine.**</i> Bye."),
]  # fmt: skip
"""(answer, what stays without its rude sentences)"""

ALONE = [
    ("It opens at nine. Ha, you fool :)! Bring a coat.", "It opens at nine. Bring a coat."),
    ("It opens at nine. Ha, you fool :(! Bring a coat.", "It opens at nine. Bring a coat."),
    ("a) It opens at nine.\nb) You fool.\nc) Bye.", "a) It opens at nine.\nb) Bye."),
    ("It is 5 * 3 m wide. You fool * really. It opens at nine.", "It is 5 * 3 m wide. It opens at nine."),
    ("It is wide. You fool, it is 5\" wide. It opens at nine.", "It is wide. It opens at nine."),
    ("It opens. Use List<String>, you fool. It opens at nine.", "It opens. It opens at nine."),
    ("It opens. Put your <name> there, you fool. It opens at nine.", "It opens. It opens at nine."),
    ("It opens. Set my_own_name and __init__, you fool. It opens at nine.", "It opens. It opens at nine."),
    ("It opens. You are in [0, 1), you fool. It opens at nine.", "It opens. It opens at nine."),
    ("It opens. You fool.<br>\nIt opens at nine.", "It opens.\nIt opens at nine."),
    ("<p>It opens at nine.\n<p>You fool.\n<p>Bye.", "<p>It opens at nine.\n<p>Bye."),
    ("It opens at nine. You** fool. Bring a coat.", "It opens at nine. Bring a coat."),
]  # fmt: skip
"""(answer with signs that are half of nothing, what stays of it)"""

REWRITTEN = [
    ("**You fool! It opens at nine.** Bye.", "You friend!", "**You friend! It opens at nine.** Bye."),
    ("**You fool! It opens at nine.** Bye.", "**You friend!", "**You friend! It opens at nine.** Bye."),
    ("**It opens at nine. You fool!** Bye.", "You friend!", "**It opens at nine. You friend!** Bye."),
    ("- **You fool! It opens at nine.**\n- Bye.", "You friend!", "- **You friend! It opens at nine.**\n- Bye."),
    ("So, you fool: **hear this! It opens.** Bye.", "So hear this!", "So hear this! **It opens.** Bye."),
    ("It opens. You fool! Bye.", "You **dear** friend!", "It opens. You **dear** friend! Bye."),
    ("It opens.\n<p>You fool!\nBye.", "<p>You friend!", "It opens.\n<p>You friend!\nBye."),
    ("It opens. You fool! Bye.", "<p>You friend!", "It opens. <p>You friend! Bye."),
]  # fmt: skip
"""(answer, what is written in place of its rude sentence, what is delivered)"""

TORN = [
    ("It opens at nine. You fool! Bye.", "You **friend!"),
    ("It opens at nine. You fool! Bye.", "You (friend!"),
    ("It opens at nine. You fool! Bye.", "<b>You friend!"),
    ("It opens at nine. You fool! Bye.", "\u201eYou friend!"),
    ("It opens at nine. You fool! Bye.", "You friend!</b>"),
    ("**You fool! It opens at nine.** Bye.", "You **friend! **So"),
]
"""(answer, what is written in place of its rude sentence and has half a pair)"""
