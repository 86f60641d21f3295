"""What the aligner writes must not stand in the answer already, and must not leave a speaker without words."""

from __future__ import annotations

from aligner_proxy.gate.edits import Edit
from aligner_proxy.gate.judge import ReleasedAnswer, judge, judge_next
from aligner_proxy.text.structure import split
from aligner_proxy.types import Correction, Objective, Policy, SegmentScore

POLICY = Policy("p", (Objective("kind", "Kindness: the response should never insult the reader"),))
SHOP = "The shop opens at nine. You fool, come early. Bring your receipt."
REFRAIN = "The tide comes in. You fool. The tide comes in. And so we wait."
TALK = "Anna says this.\n\n**Anna:** You fool.\n\n**Tom:** Good morning to you."
CASES = [
    (SHOP, "The shop opens at nine.", "gate_said_twice"),
    (SHOP, "Bring your receipt.", "gate_said_twice"),
    (SHOP, "Bring YOUR receipt!", "gate_said_twice"),
    (SHOP, "Come at nine. Wait outside the door. Wait outside the door.", "gate_said_twice"),
    (SHOP, "Please come early.", None),
    (SHOP, "", None),
    (REFRAIN, "", None),
    (REFRAIN, "We wait here.", None),
    (TALK, "**Anna:**", "gate_bare_speaker"),
    (TALK, "**Anna:** Hello.", None),
]


def segments(text: str) -> tuple[SegmentScore, ...]:
    flags = ["fool" in piece.text for piece in split(text)]
    return tuple(
        SegmentScore(piece.text, 4.0 if flag else -4.0, flag, 0) for piece, flag in zip(split(text), flags, strict=True)
    )


def flagged_place(text: str) -> tuple[int, int, int]:
    """Start and end of the flagged segment, and its number."""
    return next((piece.start, piece.end, n) for n, piece in enumerate(split(text)) if "fool" in piece.text)


def test_what_was_said_twice_may_be_replaced_twice() -> None:
    answer = "You fool, come early. We open at nine. You fool, come early."
    written = answer.replace("You fool, come early.", "Please come early.")
    assert judge(answer, Correction(written, segments(answer)), POLICY).text == written
    again = written.replace("We open at nine.", "Please come early.")
    both = answer.replace("We open at nine.", "You fool, come now.")
    assert judge(both, Correction(again, segments(both)), POLICY).reason == "gate_said_twice"


def test_what_is_written_is_not_said_twice_and_nobody_is_named_in_vain() -> None:
    failures = []
    for original, written, reason in CASES:
        start, end, number = flagged_place(original)
        new = original[:start] + written + original[end:] if written else original[:start] + original[end:].lstrip()
        verdict = judge(original, Correction(new, segments(original)), POLICY)
        if (verdict.reason, verdict.text) != (reason, original if reason else new):
            failures.append(f"whole {original!r} {written!r}: {verdict.reason} {verdict.text!r}")
        edit = Edit(start, end, written, number, number + 1)
        broken, _ = judge_next(original, edit, segments(original), ReleasedAnswer(), POLICY)
        if (f"gate_{broken}" if broken else None) != reason:
            failures.append(f"stream {original!r} {written!r}: {broken}")
    assert not failures, "\n".join(failures)
