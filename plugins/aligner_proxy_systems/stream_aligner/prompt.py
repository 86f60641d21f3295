"""Prompt of Stream Aligner for one sentence, given the text before it."""

from __future__ import annotations

import re

from aligner_proxy.prompts import FULLWIDTH_HASHES, Prompt

# From the released code of Stream Aligner (arXiv 2501.05336): the last sentence, given the text before it. Its weights
# were trained with this prompt inside a turn of Gemma's chat template.
STREAM_ALIGNER = "##Question: {prompt} | ##Answer_Prefix: {prefix} | ##Answer_Last_Sentence: {last} | ##Your_Revision: "
_GEMMA = "<start_of_turn>user\n{input}<end_of_turn>\n<start_of_turn>model"
END_OF_TURN = "<end_of_turn>"
_STREAM_FIELDS = "Question|Answer_Prefix|Answer_Last_Sentence|Your_Revision"
_STREAM_MARK = re.compile(rf"##(?=\s*(?:{_STREAM_FIELDS})\s*:)", re.IGNORECASE)
_TURN_MARK = re.compile(r"<(?=(?:start|end)_of_turn>)", re.IGNORECASE)


def revision_prompt(query: str, before: str, sentence: str, *, gemma: bool) -> Prompt:
    """Return Stream Aligner's prompt for one sentence, with the position of the sentence in it."""
    head, tail = STREAM_ALIGNER.split("{last}")
    head = _fill_template(head, prompt=_escape_marks(query), prefix=_escape_marks(before))
    before_turn, after_turn = _GEMMA.split("{input}") if gemma else ("", "")
    escaped = _escape_marks(sentence)
    start = len(before_turn) + len(head)
    return Prompt(before_turn + head + escaped + tail + after_turn, start, start + len(escaped), sentence)


def _fill_template(form: str, prompt: str, prefix: str) -> str:
    """Fill both fields of a template at once, so that a placeholder inside a filled-in text is not filled."""
    before, rest = form.split("{prompt}")
    between, after = rest.split("{prefix}")
    return before + prompt + between + prefix + after


def _escape_marks(text: str) -> str:
    """Escape a text so that it cannot end a field of the prompt or the turn around it; the length stays the same."""
    return _TURN_MARK.sub("\u2039", _STREAM_MARK.sub(FULLWIDTH_HASHES, text))
