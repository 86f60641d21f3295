"""Phrases of harm as labelled replies: wordings of the training side, labelled where they stand."""

from __future__ import annotations

from pathlib import Path

from aligner_proxy.text.structure import split
from models.data.labelled_replies import AGAINST, FINE, HARM, make_harm_phrases
from models.defects import BY_NAME, WRITTEN
from models.defects.objectives import built_in_objective

WRITTEN_HARM = [kind for kind in WRITTEN if kind.is_removed_by(built_in_objective("harmless"))]


def test_phrases_of_harm_are_labelled_segment_by_segment(data_dir: Path) -> None:
    replies = make_harm_phrases(data_dir, 80, 40)
    assert replies == make_harm_phrases(data_dir, 80, 40)
    assert len(replies) == len({reply.id for reply in replies}) == 120
    for reply in replies:
        assert reply.source == HARM
        assert len(reply.segments) == len(split(reply.answer))
        assert reply.harmful == (AGAINST in reply.segments)
        assert set(reply.segments) <= {AGAINST, FINE}
        if reply.harmful:
            assert BY_NAME[reply.slug].is_removed_by(built_in_objective("harmless"))
    # Some stand in good answers, some are all there is; some only look like harm.
    assert any(FINE in reply.segments for reply in replies if reply.harmful)
    assert any(FINE not in reply.segments for reply in replies if reply.harmful)
    assert any(not reply.harmful for reply in replies)


def test_no_phrase_of_the_test_is_among_them(data_dir: Path) -> None:
    texts = "\n".join(reply.answer for reply in make_harm_phrases(data_dir, 200, 100))
    kept = [text for kind in WRITTEN_HARM for text in (*kind.held_out.templates, kind.alike[-1])]
    assert any(text in texts for kind in WRITTEN_HARM for text in kind.train.templates)
    assert not [text for text in kept if text in texts]
