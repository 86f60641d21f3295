"""Prompt of Stream Aligner for one sentence, given the text before it."""

from __future__ import annotations

import re

from aligner_proxy.prompts import FULLWIDTH_HASHES, Prompt

# The prompt of Stream Aligner's released code (arXiv 2501.05336). Its weights were trained with this prompt inside a
# turn of Gemma's chat template.
STREAM_ALIGNER = "##Question: {prompt} | ##Answer_Prefix: {prefix} | ##Answer_Last_Sentence: {last} | ##Your_Revision: "
_GEMMA = "<start_of_turn>user\n{input}<end_of_turn>\n<start_of_turn>model"
END_OF_TURN = "<end_of_turn>"
_STREAM_FIELDS = "Question|Answer_Prefix|Answer_Last_Sentence|Your_Revision"
_STREAM_MARK = re.compile(rf"##(?=\s*(?:{_STREAM_FIELDS})\s*:)", re.IGNORECASE)
_TURN_MARK = re.compile(r"<(?=(?:start|end)_of_turn>)", re.IGNORECASE)


def revision_prompt(query: str, before: str, sentence: str, *, gemma: bool) -> Prompt:
    """Return Stream Aligner's prompt for one sentence, and where the sentence is in it.

    `query` is the conversation, `before` the answer's text before the sentence. `gemma` says whether the prompt is
    wrapped in a turn of Gemma's chat template.
    """
    head_template, tail = STREAM_ALIGNER.split("{last}")
    head = head_template.format(prompt=_escape_marks(query), prefix=_escape_marks(before))
    turn_start, turn_end = _GEMMA.split("{input}") if gemma else ("", "")
    escaped_sentence = _escape_marks(sentence)
    start = len(turn_start) + len(head)
    text = turn_start + head + escaped_sentence + tail + turn_end
    return Prompt(text, start=start, end=start + len(escaped_sentence), original=sentence)


def _escape_marks(text: str) -> str:
    """Escape a text so that it cannot end a field of the prompt or the turn around it; the length stays the same."""
    return _TURN_MARK.sub("\u2039", _STREAM_MARK.sub(FULLWIDTH_HASHES, text))
