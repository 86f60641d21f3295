"""What is delivered of texts of many forms when a sentence is removed: whole, held and in streams the same."""

from __future__ import annotations

import pytest

from tests.support.pruning import correct_in_all_ways

HINDI = (
    "\u092a\u0939\u0932\u0947 \u0926\u0940\u0935\u093e\u0930 \u0927\u094b\u090f\u0901\u0964",
    "\u0924\u0941\u092e fool \u0939\u094b\u0964",
    "\u092b\u093f\u0930 \u0909\u0938\u0947 \u0938\u0942\u0916\u0928\u0947 \u0926\u0947\u0902\u0964",
)
ARABIC = (
    "\u0627\u063a\u0633\u0644 \u0627\u0644\u062c\u062f\u0627\u0631 \u0623\u0648\u0644\u0627.",
    "\u0647\u0644 \u0623\u0646\u062a fool\u061f",
    "\u062b\u0645 \u0627\u062f\u0647\u0646\u0647 \u0628\u0627\u0644\u0641\u0631\u0634\u0627\u0629.",
)


@pytest.mark.parametrize("sentences", [HINDI, ARABIC], ids=["Hindi", "Arabic"])
async def test_a_sentence_with_a_mark_of_its_script_goes_alone(sentences: tuple[str, str, str]) -> None:
    first, _, last = sentences
    assert set((await correct_in_all_ways(" ".join(sentences))).values()) == {f"{first} {last}"}
