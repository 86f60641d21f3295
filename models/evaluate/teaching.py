"""Teaching one objective from sentences, as `aligner-proxy teach` does, for an evaluation that has an engine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from aligner_proxy.engine.api import Engine, require_teachable
from aligner_proxy.plugins import registry
from aligner_proxy.policy import config
from aligner_proxy.teaching import subjects
from aligner_proxy.teaching.rows import RowReader, RowsCache
from aligner_proxy.teaching.subjects import Subject
from aligner_proxy.teaching.teach import NothingLearned, plan_material, teach_objective
from aligner_proxy.types import DEFAULT_ALIGNER


async def teach_head(
    engine: Engine,
    folder: Path,
    name: str,
    text: str,
    against: Sequence[str],
    fine: Sequence[str],
    good_answers: Sequence[tuple[str, str]] = (),
) -> str | None:
    """Teach one objective to an engine and return the hash of its head; None where nothing was learned.

    `good_answers` are (question, answer). The policy, the examples and the rows that were read lie in `folder`. Raises
    `CorrectionError`.
    """
    good = [{"question": question, "answer": answer} for question, answer in good_answers]
    subject = _make_subject(folder, name, text, {"against": list(against), "fine": list(fine), "good_answers": good})
    builtin = {builtin_name: objective.text for builtin_name, objective in config.builtin_objectives().items()}
    examples = subject.read_examples()
    heads = require_teachable(engine)
    reader = RowReader(heads, DEFAULT_ALIGNER, (await engine.info()).content_hash)
    cache = RowsCache(folder / "rows")
    try:
        learned = await teach_objective(
            subject, examples, plan_material(subject, examples, builtin), reader, cache, DEFAULT_ALIGNER
        )
    except NothingLearned:
        return None
    return await heads.put_head(learned.head)


def _make_subject(folder: Path, name: str, text: str, examples: dict[str, list[Any]]) -> Subject:
    """Write a policies file with this objective and its examples into the folder, and read the objective from it."""
    folder.mkdir(parents=True, exist_ok=True)
    policies = {"objectives": {name: {"text": text, "examples": "examples.yaml"}}}
    for file_name, document in (("examples.yaml", examples), ("policies.yaml", policies)):
        (folder / file_name).write_text(yaml.safe_dump(document, width=1000), encoding="utf-8")
    [subject] = subjects.select_subjects(registry.load_policies(folder / "policies.yaml"), ())
    return subject
