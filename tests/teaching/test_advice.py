"""What `teach` says of more examples: no more than the number of sentences allows."""

from __future__ import annotations

from aligner_proxy.teaching.store import Count, Version
from aligner_proxy.teaching.teach import advise_examples


def advise(found: int, half: int, of: int) -> str:
    version = Version.model_construct(found=Count(hits=found, of=of))
    return advise_examples(version, Count(hits=half, of=of))


def test_advice_claims_no_more_than_the_interval_allows() -> None:
    expected = {
        (3, 2, 3): "3 examples are too few to say",
        (4, 4, 4): "so 51 to 100 % of sentences like these: that is too wide to say what more would help; about 4 more",
        (4, 2, 4): "too wide to say what more would help",
        (8, 8, 8): "so 68 to 100 % of sentences like these: that is too wide",
        (12, 11, 12): "so 76 to 100 % of sentences like these: more of the same kind will hardly help",
        (11, 2, 12): "so 65 to 99 % of sentences like these: about 12 more, unlike these, should help",
        (9, 7, 12): "about 12 more, unlike these, may help",
        (6, 6, 12): "more of the same kind will hardly help, others than these may",
    }
    failures = [
        f"{figures}: {advise(*figures)}" for figures, words in expected.items() if words not in advise(*figures)
    ]
    assert not failures, "\n".join(failures)
