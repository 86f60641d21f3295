"""What would become of a request's preferences? For `check`: how each is met, and which are not in force, and why."""

from __future__ import annotations

from collections.abc import Iterator

from aligner_proxy.preferences import READ_CHARS, wishes
from aligner_proxy.preferences.dialogue import MetaPrompt
from aligner_proxy.preferences.reading import read
from aligner_proxy.types import Policy
from aligner_proxy.wishes import Wish


def how(wish: Wish) -> str:
    """By whom a wish is met, and whether anybody can say afterwards that it is."""
    if wish.certain:
        return "met by rules"
    return "asked of the corrector, checked" if wish.checkable else "asked of the corrector, in words"


def warnings(said: MetaPrompt, policy: Policy) -> Iterator[str]:
    """What of these texts is not in force."""
    there = {(wish.kind, wish.source) for wish in wishes(policy).values()}
    for source, text in said.tiers():
        if not text.strip():
            continue
        if source not in policy.preferences:
            yield f"the route does not read preferences of the {source.value}: add it to `preferences`"
            continue
        found = read(text[:READ_CHARS], source)
        for wish in found.wishes:
            if (wish.kind, source) not in there:
                yield f"{wish.kind.value} ({source.value}) is set aside: a higher tier or a later word holds"
        if not found.wishes and source not in {wish.source for wish in wishes(policy).values()}:
            yield f"nothing of the {source.value} is in force: no words in it are about the answer"
