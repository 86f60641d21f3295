"""Rows: what the serving engine reads of answers, segment by segment, and a cache of those of neutral answers.

A prompt asks about the objective alone or in company of others, because a state of the model depends on all that
stands before it. The rows of neutral answers depend on the aligner, the objectives and the answers; a cache on disk
keeps them, so that teaching an objective again reads only its examples.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Protocol

from aligner_proxy.engine.api import ExchangeRows, ExchangeText, HasHeads, RowsRequest
from aligner_proxy.errors import InvalidOutput
from aligner_proxy.types import Turn, replace_surrogates

BATCH = 8
"""Answers of one request: so many advance a progress bar at once."""
DEADLINE_S = 1800.0
_AT_ONCE = 2
"""Requests at a time: an engine reads several in one step, and others want their places, too."""
_ACCOUNT = hashlib.sha256(b"teach").hexdigest()[:16]
_MOST_FILES = 96
_VERSION = 1
_NUMBER = 2
"""Bytes of a number in a row."""


class AnsweredConversation(Protocol):
    """A conversation with its answer."""

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The conversation before the answer."""
        ...

    @property
    def answer(self) -> str:
        """The answer."""
        ...


@dataclass(frozen=True, slots=True)
class PromptObjectives:
    """The objectives of a prompt, and which of them is taught."""

    texts: tuple[str, ...]
    index: int = 0


def sample_companions(
    text: str, usual: Sequence[str], further: Sequence[str], count: int, rng: Random
) -> list[PromptObjectives]:
    """Prompts with the objective among others: `usual` ones mostly, and one or two of the `further`, in any order."""
    result = []
    for _ in range(count):
        others = [other for other in usual if rng.random() < 0.8] + rng.sample(list(further), rng.choice((1, 2)))
        texts = [other for other in dict.fromkeys(others) if other != text]
        rng.shuffle(texts)
        index = rng.randrange(len(texts) + 1)
        result.append(PromptObjectives((*texts[:index], text, *texts[index:]), index))
    return result


@dataclass(frozen=True, slots=True)
class AnswerRows:
    """What was read of one answer: its segments, their rows as 16-bit numbers, and the general head's scores."""

    segments: tuple[tuple[int, int], ...]
    rows: bytes
    general: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class RowReader:
    """Reads answers with one aligner of an engine. `on_progress` gets the number of answers that were read."""

    engine: HasHeads
    aligner: str
    content_hash: str
    on_progress: Callable[[int], None] = lambda _: None

    async def read(self, company: PromptObjectives, answers: Sequence[AnsweredConversation]) -> list[AnswerRows]:
        """Rows of each answer; raises `CorrectionError`."""
        places = asyncio.Semaphore(_AT_ONCE)

        async def read_batch(batch: Sequence[AnsweredConversation]) -> list[AnswerRows]:
            async with places:
                return await self._read_batch(company, batch)

        batches = [answers[first : first + BATCH] for first in range(0, len(answers), BATCH)]
        tasks = [asyncio.ensure_future(read_batch(batch)) for batch in batches]
        try:
            return [rows for batch in await asyncio.gather(*tasks) for rows in batch]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read_batch(self, company: PromptObjectives, answers: Sequence[AnsweredConversation]) -> list[AnswerRows]:
        request = RowsRequest(
            request_id="teach",
            aligner=self.aligner,
            tenant=_ACCOUNT,
            exchanges=tuple(
                ExchangeText(turns=conversation.turns, answer=replace_surrogates(conversation.answer))
                for conversation in answers
            ),
            objectives=tuple(map(replace_surrogates, company.texts)),
            deadline_s=DEADLINE_S,
        )
        response = await self.engine.rows(request)
        if response.aligner != self.content_hash or len(response.exchanges) != len(answers):
            raise InvalidOutput("the engine answered with rows of another aligner, or of other answers")
        self.on_progress(len(answers))
        return [_answer_rows(rows, company.index, response.width) for rows in response.exchanges]


def _answer_rows(rows: ExchangeRows, index: int, width: int) -> AnswerRows:
    """The rows of segments with text; the place behind the last one has none."""
    data = base64.b64decode(rows.rows)
    size = width * _NUMBER
    if len(data) != size * len(rows.segments):
        raise InvalidOutput("the engine answered with rows that do not belong to their segments")
    with_text = [n for n, (start, end) in enumerate(rows.segments) if end > start]
    return AnswerRows(
        tuple(rows.segments[n] for n in with_text),
        b"".join(data[n * size : (n + 1) * size] for n in with_text),
        tuple(rows.scores[n][index] for n in with_text),
    )


class RowsCache:
    """Rows of neutral answers, a file for each prompt's objectives; those not used for longest make room."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def has(self, reader: RowReader, company: PromptObjectives, answers: Sequence[AnsweredConversation]) -> bool:
        """Whether these rows are there."""
        return self._path(reader, company, answers).exists()

    async def read(
        self, reader: RowReader, company: PromptObjectives, answers: Sequence[AnsweredConversation]
    ) -> list[AnswerRows]:
        """The rows from the cache, else from the engine."""
        path = self._path(reader, company, answers)
        rows = _unpack_rows(path)
        if rows is None or len(rows) != len(answers):
            rows = await reader.read(company, answers)
            with contextlib.suppress(OSError):  # a full disk costs the cache, not the lesson
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                write_atomically(path, _pack_rows(rows))
                self._make_room()
        else:
            reader.on_progress(len(answers))
            with contextlib.suppress(OSError):
                os.utime(path)
        return rows

    def _path(self, reader: RowReader, company: PromptObjectives, answers: Sequence[AnsweredConversation]) -> Path:
        parts = [_VERSION, reader.content_hash, company.texts, company.index, _digest(answers)]
        return self._folder / f"{hashlib.sha256(json.dumps(parts).encode()).hexdigest()}.rows"

    def _make_room(self) -> None:
        files = sorted(self._folder.glob("*.rows"), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in files[_MOST_FILES:]:
            path.unlink(missing_ok=True)


def _digest(answers: Sequence[AnsweredConversation]) -> str:
    texts = [[[turn.content for turn in conversation.turns], conversation.answer] for conversation in answers]
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that readers see all of it or the one before, also after a power cut."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.")
    new = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def _pack_rows(answers: Sequence[AnswerRows]) -> bytes:
    """A line of JSON for all that is no row, the rows, and the digest of both in front."""
    head = [{name: value for name, value in asdict(answer).items() if name != "rows"} for answer in answers]
    body = json.dumps(head).encode() + b"\n" + b"".join(answer.rows for answer in answers)
    return hashlib.sha256(body).digest() + body


def _unpack_rows(path: Path) -> list[AnswerRows] | None:
    """The rows in a file; None if there is none, or it is not whole."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    size = hashlib.sha256().digest_size
    if hashlib.sha256(data[size:]).digest() != data[:size]:
        return None
    line, _, rows = data[size:].partition(b"\n")
    heads = json.loads(line)
    segments = sum(len(head["segments"]) for head in heads)
    width = len(rows) // segments if segments else 0
    result = []
    at = 0
    for head in heads:
        end = at + width * len(head["segments"])
        spans = tuple((int(first), int(last)) for first, last in head["segments"])
        result.append(AnswerRows(spans, rows[at:end], tuple(map(float, head["general"]))))
        at = end
    return result
