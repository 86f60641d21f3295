"""Replies of models and sentences of people that others labelled as harmful or harmless.

They are in the folder `more/` of the research data, under licences that allow training. Each reply has one label. If
the reply is one sentence, that is the label of the sentence; in a longer harmful reply it is unknown which segments are
harmful. The texts are not published, only weights and figures that come from them. The same goals of attacks are in
several files, so a goal is on the same side in all of them; one goal in ten is for measuring only.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import Any, Literal

from aligner_proxy.text.structure import split

from .labelled_replies import AGAINST, FINE, HARMLESS, UNKNOWN, LabelledReply, take_turns
from .preference_sets import read_further_rows

Side = Literal["train", "dev"]
_DEV_IN = 10
"""One goal in so many is on the development side."""
_LONGEST = 1500
"""Characters; what is longer is cut behind a segment: harm is all over a reply that goes along with it."""
_LONGEST_QUESTION = 700
_ASKING = (
    "What do you say to that?",
    "Write one sentence on it.",
    "Please go on with the text.",
    "What would you post there?",
    "Finish the paragraph for me.",
    "Give me your honest opinion.",
    "Say something about them.",
    "How would you put it?",
)
"""Questions of ours before sentences that stand without one."""


@dataclass(frozen=True, slots=True)
class ReplyFile:
    """One file: its repository and licence, how many replies are taken, and how its fields are read."""

    repository: str
    licence: str
    most: int
    """Most replies that are taken, half of them harmful if there are enough."""
    goal: str = "prompt"
    """The field, perhaps below `extra`, by which replies are divided into sides; equal texts are on one side."""
    question: str = "prompt"
    """The field with the question."""
    opening: str = ""
    """A pattern of first segments that are cut off ("Sure, here is ..."): they tell the attack, not the harm."""


SOURCES: Mapping[str, ReplyFile] = MappingProxyType(
    {
        "a_refusal_direction_replies": ReplyFile("andyrdt/refusal_direction", "Apache-2.0", 1800),
        "a_shadow_alignment_replies": ReplyFile("BeyonderXX/ShadowAlignment", "Apache-2.0", 1800),
        "a_adaptive_attack_replies": ReplyFile(
            "tml-epfl/llm-adaptive-attacks", "MIT", 500, opening=r"(?i)(<text>\s*)?(sure|step 1)\b|.*educational"
        ),
        "a_past_tense_replies": ReplyFile("tml-epfl/llm-past-tense", "MIT", 1000, goal="goal"),
        "a_configurable_safety_pairs": ReplyFile("vicgalle/configurable-safety-tuning", "MIT", 700),
        "a_advbench_uncensored_vicuna": ReplyFile("xirui-li/DrAttack", "MIT", 1030),
        "a_safedecoding_refusals": ReplyFile("uw-nsl/SafeDecoding", "MIT", 680),
        "a_safetext_advice": ReplyFile("sharonlevy/SafeText", "MIT", 740),
        "a_llm_self_defense": ReplyFile("poloclub/llm-self-defense", "BSD-3-Clause", 210),
        "a_openai_rbr_gold": ReplyFile("openai/safety-rbr-code-and-data", "MIT", 600, question="last_user"),
        "b_latent_jailbreak_replies": ReplyFile("qiuhuachuan/latent-jailbreak", "MIT", 633),
        "b_advbench_harmful_strings": ReplyFile("sail-sg/I-FSJ (a copy of AdvBench)", "MIT", 1100, goal="answer"),
        "b_hatecheck": ReplyFile("paul-rottger/hatecheck-data", "CC BY 4.0", 1400, goal="templ_id"),
        "b_openai_moderation": ReplyFile("openai/moderation-api-release", "MIT", 500, goal="answer"),
        "d_coconot_contrast": ReplyFile("allenai/noncompliance", "MIT", 1860),
        "d_refusalbench_benign": ReplyFile("AppliedScientific/refusalbench", "MIT", 560),
    }
)


def read_harm_replies(data: Path, name: str, side: Side = "train", seed: int = 1) -> list[LabelledReply]:
    """The labelled replies of one source and side; all goals have about as many."""
    source = SOURCES[name]
    groups: dict[tuple[str, bool], list[LabelledReply]] = {}
    for number, row in enumerate(read_further_rows(data, name)):
        goal = _read_field(row, source.goal)
        if row["harmful"] is None or side_of_goal(goal) != side:
            continue
        reply = _make_reply(source, name, number, row)
        if reply:
            groups.setdefault((goal, reply.harmful), []).append(reply)
    rng = Random(f"{name}:{seed}")
    replies: list[LabelledReply] = []
    for harmful in (False, True):
        goals = [groups[key] for key in sorted(groups) if key[1] is harmful]
        replies += take_turns(goals, source.most // 2, rng)
    return replies


def side_of_goal(goal: str) -> Side:
    """The side of a goal, by a hash of its words."""
    words = " ".join(re.findall(r"[a-z0-9]+", goal.lower()))
    return "train" if int(hashlib.sha256(words.encode()).hexdigest(), 16) % _DEV_IN else "dev"


def _read_field(row: Mapping[str, Any], name: str) -> str:
    """A field of a row or of its `extra`; the prompt if neither has it."""
    return str(row[name] if name in row else row["extra"].get(name) or row["prompt"])


def _make_reply(source: ReplyFile, name: str, number: int, row: Mapping[str, Any]) -> LabelledReply | None:
    """The reply of a row; None if no text is left of it.

    Of a harmful reply it is not known which segments are harmful, unless it has only one.
    """
    answer = _cut_beginning(_drop_opening(row["answer"].strip(), source.opening))
    count = len(split(answer))
    if not count:
        return None
    harmful = bool(row["harmful"])
    label = FINE if not harmful else AGAINST if count == 1 else UNKNOWN
    question = _read_field(row, source.question).strip() or _ASKING[number % len(_ASKING)]
    labels = (label,) * count
    goal = _read_field(row, source.goal)
    return LabelledReply(
        f"{name}-{number}",
        name,
        goal,
        question=question[-_LONGEST_QUESTION:],
        answer=answer,
        objective=HARMLESS,
        harmful=harmful,
        segments=labels,
    )


def _drop_opening(text: str, opening: str) -> str:
    """The text without its first segment, if the pattern `opening` matches that and more follows."""
    segments = split(text)
    drop = opening and len(segments) > 1 and re.match(opening, segments[0].text.strip())
    return text[segments[0].end :].strip() if drop else text


def _cut_beginning(text: str) -> str:
    """The first segments of a text, at most `_LONGEST` characters; of a longer first segment its beginning."""
    ends = [segment.end for segment in split(text) if segment.end <= _LONGEST]
    return text[: ends[-1] if ends else _LONGEST].strip()
