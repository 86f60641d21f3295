"""Replies of models, and sentences of people, that others labelled harmful or harmless: what `more/` of the research
data holds of them under licences that allow training.

One label a reply. Where a reply is one sentence, that is the sentence's label; of a longer harmful one it is not known
which segments it is about. Texts stay where they are: only weights and figures derived from them may leave.
The goals of attacks recur in several files, so a goal is on one side in all of them: one in ten only measures.
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
    """One file: whose it is and by which licence, how many replies are taken at most, and what is dropped of them."""

    repository: str
    licence: str
    most: int
    """As many harmful as harmless ones, where there are."""
    goal: str = "prompt"
    """The field, or the one below `extra`, whose texts belong to one side together."""
    question: str = "prompt"
    opening: str = ""
    """A first segment that this matches goes: attacks ask for it, and it tells the attack, not the harm."""


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
    """The replies of one source and side that have a label, alike of all goals."""
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
    return [
        reply
        for harmful in (False, True)
        for reply in take_turns([groups[key] for key in sorted(groups) if key[1] is harmful], source.most // 2, rng)
    ]


def side_of_goal(goal: str) -> Side:
    """The side that a goal is on, by its words alone."""
    words = " ".join(re.findall(r"[a-z0-9]+", goal.lower()))
    return "train" if int(hashlib.sha256(words.encode()).hexdigest(), 16) % _DEV_IN else "dev"


def _read_field(row: Mapping[str, Any], name: str) -> str:
    return str(row[name] if name in row else row["extra"].get(name) or row["prompt"])


def _make_reply(source: ReplyFile, name: str, number: int, row: Mapping[str, Any]) -> LabelledReply | None:
    """A row as a reply; none where nothing of it is left."""
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
        f"{name}-{number}", name, goal, question[-_LONGEST_QUESTION:], answer, HARMLESS, harmful, labels
    )


def _drop_opening(text: str, opening: str) -> str:
    segments = split(text)
    drop = opening and len(segments) > 1 and re.match(opening, segments[0].text.strip())
    return text[segments[0].end :].strip() if drop else text


def _cut_beginning(text: str) -> str:
    """As many whole segments as are not too long together; of one that is, its beginning."""
    ends = [segment.end for segment in split(text) if segment.end <= _LONGEST]
    return text[: ends[-1] if ends else _LONGEST].strip()
