"""Rows: the feature vectors that the serving engine computes for segments of answers, and a cache of them.

A prompt has only the taught objective or also others, because a state of the model depends on everything before it. The
rows of neutral answers depend only on the aligner, the objectives and the answers. A cache on disk stores them, so that
teaching an objective again reads only its examples, and objectives that stand in one prompt are read once for all.
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

from aligner_proxy.engine.api import ExchangeRows, ExchangeText, RowsRequest, Teachable
from aligner_proxy.errors import InvalidOutput
from aligner_proxy.types import Turn, replace_surrogates

BATCH = 8
"""Answers per request; the progress bar advances in these steps."""
DEADLINE_S = 1800.0
"""Deadline of one request in seconds."""
_MAX_CONCURRENT = 2
"""Requests at a time: more than one, because an engine reads several in one step, but few, to leave slots to others."""
_ACCOUNT = hashlib.sha256(b"teach").hexdigest()[:16]
"""The tenant to which the engine counts this work."""
_MAX_FILES = 96
"""Files that the cache keeps."""
_FORMAT_VERSION = 2
"""Version of the file format, a part of the hash in each file's name."""
_NUMBER_BYTES = 2
"""Bytes of a number in a row."""


class AnsweredConversation(Protocol):
    """A conversation and the answer to it."""

    @property
    def turns(self) -> tuple[Turn, ...]: ...

    @property
    def answer(self) -> str: ...


@dataclass(frozen=True, slots=True)
class PromptObjectives:
    """The objectives of a prompt, and the index of the taught one."""

    texts: tuple[str, ...]
    index: int = 0


def sample_companions(
    text: str, usual: Sequence[str], further: Sequence[str], count: int, rng: Random
) -> list[PromptObjectives]:
    """Return `count` random lists of objectives with `text` at a random place among others.

    The others are most of the `usual` objectives, and one or two of the `further` ones.
    """
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
    """What the engine computed for one answer."""

    segments: tuple[tuple[int, int], ...]
    """(start, end) of each segment in the answer."""
    rows: bytes
    """The feature vectors of the segments as 16-bit floats, one after the other."""
    scores: tuple[tuple[float, ...], ...]
    """For each segment, the general head's score for each objective of the prompt."""

    def general_scores(self, index: int) -> list[float]:
        """The general head's scores of the segments for one objective of the prompt."""
        return [scores[index] for scores in self.scores]


@dataclass(frozen=True, slots=True)
class RowReader:
    """Reader of answers with one aligner of an engine; it calls `on_progress` with the number of answers just read."""

    engine: Teachable
    aligner: str
    """Name of the aligner in the policies."""
    content_hash: str
    """Content hash that the aligner must have; rows of another one are refused."""
    on_progress: Callable[[int], None] = lambda _: None

    async def read(self, prompt: PromptObjectives, answers: Sequence[AnsweredConversation]) -> list[AnswerRows]:
        """Return the rows of each answer, as the engine computes them in batches; raises `CorrectionError`."""
        places = asyncio.Semaphore(_MAX_CONCURRENT)

        async def read_batch(batch: Sequence[AnsweredConversation]) -> list[AnswerRows]:
            async with places:
                return await self._read_batch(prompt, batch)

        batches = [answers[first : first + BATCH] for first in range(0, len(answers), BATCH)]
        tasks = [asyncio.ensure_future(read_batch(batch)) for batch in batches]
        try:
            return [rows for batch in await asyncio.gather(*tasks) for rows in batch]
        finally:
            for task in tasks:  # after a failure or a cancellation the others are useless
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read_batch(self, prompt: PromptObjectives, answers: Sequence[AnsweredConversation]) -> list[AnswerRows]:
        """Return the rows of one batch; raises `InvalidOutput` if the engine replied for another aligner or answers."""
        request = RowsRequest(
            request_id="teach",
            aligner=self.aligner,
            tenant=_ACCOUNT,
            exchanges=tuple(
                ExchangeText(turns=conversation.turns, answer=replace_surrogates(conversation.answer))
                for conversation in answers
            ),
            objectives=tuple(map(replace_surrogates, prompt.texts)),
            deadline_s=DEADLINE_S,
        )
        response = await self.engine.rows(request)
        if response.aligner != self.content_hash or len(response.exchanges) != len(answers):
            raise InvalidOutput("the engine answered with rows of another aligner, or of other answers")
        self.on_progress(len(answers))
        return [_decode_rows(rows, response.width) for rows in response.exchanges]


def _decode_rows(rows: ExchangeRows, width: int) -> AnswerRows:
    """Decode the rows of segments with text; the empty segment at the end of an answer is dropped.

    Raises `InvalidOutput` if the number of rows is not that of the segments.
    """
    data = base64.b64decode(rows.rows)
    size = width * _NUMBER_BYTES
    if len(data) != size * len(rows.segments):
        raise InvalidOutput("the engine answered with rows that do not belong to their segments")
    with_text = [n for n, (start, end) in enumerate(rows.segments) if end > start]
    return AnswerRows(
        tuple(rows.segments[n] for n in with_text),
        b"".join(data[n * size : (n + 1) * size] for n in with_text),
        tuple(tuple(rows.scores[n]) for n in with_text),
    )


class RowsCache:
    """Disk cache for rows of neutral answers, one file for each prompt; deletes the least recently used files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def read(
        self, reader: RowReader, prompt: PromptObjectives, answers: Sequence[AnsweredConversation]
    ) -> list[AnswerRows]:
        """The rows from the cache; if they are missing, read them with the engine and store them."""
        path = self._path(reader, prompt, answers)
        rows = _unpack_rows(path)
        if rows is None or len(rows) != len(answers):
            rows = await reader.read(prompt, answers)
            with contextlib.suppress(OSError):  # if the disk is full, teach without the cache
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                write_atomically(path, _pack_rows(rows))
                self._make_room()
        else:
            reader.on_progress(len(answers))
            with contextlib.suppress(OSError):
                os.utime(path)  # the time decides which files are deleted first
        return rows

    def _path(self, reader: RowReader, prompt: PromptObjectives, answers: Sequence[AnsweredConversation]) -> Path:
        """The file for these rows, named by a hash of everything on which they depend."""
        parts = [_FORMAT_VERSION, reader.content_hash, prompt.texts, _digest(answers)]
        return self._folder / f"{hashlib.sha256(json.dumps(parts).encode()).hexdigest()}.rows"

    def _make_room(self) -> None:
        """Delete the files that were not used for longest, beyond `_MAX_FILES`."""
        files = sorted(self._folder.glob("*.rows"), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in files[_MAX_FILES:]:
            path.unlink(missing_ok=True)


def _digest(answers: Sequence[AnsweredConversation]) -> str:
    """Hash of the texts of these conversations and answers."""
    texts = [[[turn.content for turn in conversation.turns], conversation.answer] for conversation in answers]
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that readers see either the whole new file or the old one, even after a power cut."""
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
    """Encode answers as a SHA-256 digest of what follows, a line of JSON for everything except rows, and the rows."""
    descriptions = [{name: value for name, value in asdict(answer).items() if name != "rows"} for answer in answers]
    body = json.dumps(descriptions).encode() + b"\n" + b"".join(answer.rows for answer in answers)
    return hashlib.sha256(body).digest() + body


def _unpack_rows(path: Path) -> list[AnswerRows] | None:
    """Decode the rows in a file that `_pack_rows` wrote; None if there is no file, or its digest is wrong."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    digest_size = hashlib.sha256().digest_size
    body = data[digest_size:]
    if hashlib.sha256(body).digest() != data[:digest_size]:
        return None
    first_line, _, rows = body.partition(b"\n")
    descriptions = json.loads(first_line)
    segment_count = sum(len(description["segments"]) for description in descriptions)
    bytes_of_row = len(rows) // segment_count if segment_count else 0
    result = []
    start = 0
    for description in descriptions:
        end = start + bytes_of_row * len(description["segments"])
        segments = tuple((int(first), int(last)) for first, last in description["segments"])
        scores = tuple(tuple(map(float, of_segment)) for of_segment in description["scores"])
        result.append(AnswerRows(segments, rows[start:end], scores))
        start = end
    return result
