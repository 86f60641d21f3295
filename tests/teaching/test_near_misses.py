"""Frames of near misses: in every language of the neutral answers, and each filled one is a sentence of its own."""

from __future__ import annotations

from aligner_proxy.teaching.near_misses import can_be_framed, fill_frame, frames_of
from aligner_proxy.teaching.neutral import neutral_languages
from aligner_proxy.text.structure import split

SENTENCES = ("I get lonely at night.", 'She said "wait for me" and I cried!', "Is that not sad?", "No mark at the end")


def test_every_language_of_the_neutral_answers_has_frames_of_both_sorts() -> None:
    for language in neutral_languages():
        frames = frames_of(language)
        assert len(set(frames.mentions)) >= 6, language
        assert len(set(frames.assertions)) >= 2, language
        assert all(frame.count("{}") == 1 for frame in (*frames.mentions, *frames.assertions)), language


def test_a_language_without_frames_has_none() -> None:
    assert frames_of("fi").mentions == frames_of("fi").assertions == ()


def test_a_filled_frame_is_one_sentence_among_others() -> None:
    wrong = []
    for language in neutral_languages():
        frames = frames_of(language)
        for frame in (*frames.mentions, *frames.assertions):
            for sentence in SENTENCES:
                filled = fill_frame(frame, sentence)
                segments = [segment.text.strip() for segment in split(f"It opens at six. {filled} Bring a coat.")]
                if segments != ["It opens at six.", filled, "Bring a coat."]:
                    wrong.append(segments)
    assert wrong == []


def test_quotation_marks_inside_a_framed_sentence_do_not_end_the_outer_ones() -> None:
    assert fill_frame('He wrote: "{}".', 'I said "no" twice.') == "He wrote: \"I said 'no' twice\"."


def test_only_a_single_sentence_can_be_framed() -> None:
    assert can_be_framed("I get lonely at night.")
    assert not can_be_framed("I get lonely at night. Nobody writes to me.")
