"""What an editor costs beside writing whole answers anew, and that clean answers cost nothing."""

from __future__ import annotations

from models.data.upstream_completions import UpstreamCompletion
from models.evaluate.editor_cost import LARGEST_SHARE, format_table, run

ANSWER = (
    "A ferry leaves for the island in the morning. It is best to be on the pier early, since there are few seats. "
    "On the way there is a lot to see. The lighthouse comes first, and then the cliffs with the birds. "
    "Take something warm with you. The wind is cold even in summer, and the deck has no roof."
)


async def test_an_editor_writes_a_fraction_and_clean_answers_cost_nothing() -> None:
    texts = [UpstreamCompletion("gpt4", f"Question {n}?", ANSWER * 2, "alpaca") for n in range(8)]
    costs, judged_count, calls = await run(texts, seed=1, clean=1_000)
    assert len(costs) == 8
    assert all(cost.exact and cost.share_written < LARGEST_SHARE for cost in costs)
    assert all(cost.share_written < cost.share_of_price < cost.share_of_all < 1 for cost in costs)
    assert (judged_count, calls) == (1_000, 0)
    assert "1000 clean answers: 0 calls" in format_table(costs, judged_count, calls)
