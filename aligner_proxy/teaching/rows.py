"""Rows: the feature vectors that the serving engine computes for segments of answers, and a cache of these rows. The
general head is the aligner's own detector head, which scores any objective.

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

from aligner_proxy.engine.api import ExchangeRows, ExchangeText, RowsRequest, RowsResponse, Teachable
from aligner_proxy.errors import InvalidOutput
from aligner_proxy.types import Turn, replace_surrogates

BATCH = 8
"""Number of answers per request; the progress bar advances in these steps."""
DEADLINE_S = 1800.0
_MAX_CONCURRENT = 2
"""Requests at a time: several, because an engine reads several in one step, but few, to leave slots to other work."""
_TENANT = hashlib.sha256(b"teach").hexdigest()[:16]
"""The tenant to which the engine counts this work."""
_MAX_FILES = 96
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

    The others (companions) are most of the `usual` objectives, and one or two of the `further` ones.
    """
    prompts = []
    for _ in range(count):
        companions = [companion for companion in usual if rng.random() < 0.8]
        companions += rng.sample(list(further), rng.choice((1, 2)))
        texts = [companion for companion in dict.fromkeys(companions) if companion != text]
        rng.shuffle(texts)
        index = rng.randrange(len(texts) + 1)
        prompts.append(PromptObjectives((*texts[:index], text, *texts[index:]), index))
    return prompts


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
        """Return the general head's scores of the segments for the objective with this index in the prompt."""
        return [segment_scores[index] for segment_scores in self.scores]


@dataclass(frozen=True, slots=True)
class RowReader:
    """Reader of answers with one aligner of an engine. It calls `on_progress` with the number of answers just read."""

    engine: Teachable
    aligner: str
    """Name of the aligner in the policies."""
    content_hash: str
    """Content hash that the aligner must have; rows of another aligner are refused."""
    on_progress: Callable[[int], None] = lambda _: None

    async def read_space(self, prompt_objectives: PromptObjectives) -> bytes:
        """Return the bytes of the aligner's teaching space, none if it has no such space; raises `CorrectionError`."""
        # the engine sends it with rows, so it gets a word to read
        word = ExchangeText(turns=(), answer="Yes.")
        response = await self._send((word,), prompt_objectives, with_space=True)
        return base64.b64decode(response.space)

    async def read(
        self, prompt_objectives: PromptObjectives, answers: Sequence[AnsweredConversation]
    ) -> list[AnswerRows]:
        """Return the rows of each answer, in order, read in prompts with `prompt_objectives`.

        The answers are sent to the engine in batches, a few at a time. Raises `CorrectionError`.
        """
        request_limiter = asyncio.Semaphore(_MAX_CONCURRENT)

        async def read_batch(batch: Sequence[AnsweredConversation]) -> list[AnswerRows]:
            async with request_limiter:
                return await self._read_batch(prompt_objectives, batch)

        batches = [answers[first : first + BATCH] for first in range(0, len(answers), BATCH)]
        tasks = [asyncio.ensure_future(read_batch(batch)) for batch in batches]
        try:
            rows_of_batches = await asyncio.gather(*tasks)
            return [answer_rows for batch_rows in rows_of_batches for answer_rows in batch_rows]
        finally:
            # after a failure or a cancellation, the other requests are useless
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read_batch(
        self, prompt_objectives: PromptObjectives, answers: Sequence[AnsweredConversation]
    ) -> list[AnswerRows]:
        exchanges = tuple(
            ExchangeText(turns=answer.turns, answer=replace_surrogates(answer.answer)) for answer in answers
        )
        response = await self._send(exchanges, prompt_objectives)
        self.on_progress(len(answers))
        return [_decode_rows(exchange, response.width) for exchange in response.exchanges]

    async def _send(
        self, exchanges: tuple[ExchangeText, ...], prompt_objectives: PromptObjectives, *, with_space: bool = False
    ) -> RowsResponse:
        """Ask the engine for rows; raises `InvalidOutput` if it replied for another aligner or other answers."""
        request = RowsRequest(
            request_id="teach",
            aligner=self.aligner,
            tenant=_TENANT,
            exchanges=exchanges,
            objectives=tuple(map(replace_surrogates, prompt_objectives.texts)),
            with_space=with_space,
            deadline_s=DEADLINE_S,
        )
        response = await self.engine.rows(request)
        if response.aligner != self.content_hash or len(response.exchanges) != len(exchanges):
            raise InvalidOutput("the engine answered with rows of another aligner, or of other answers")
        return response


def _decode_rows(exchange: ExchangeRows, width: int) -> AnswerRows:
    """Decode the rows of an answer, of `width` numbers each; the empty segment at the end of the answer is dropped.

    Raises `InvalidOutput` if there are not as many rows as segments.
    """
    data = base64.b64decode(exchange.rows)
    row_bytes = width * _NUMBER_BYTES
    if len(data) != row_bytes * len(exchange.segments):
        raise InvalidOutput("the engine answered with rows that do not belong to their segments")
    indices_with_text = [index for index, (start, end) in enumerate(exchange.segments) if end > start]
    return AnswerRows(
        segments=tuple(exchange.segments[index] for index in indices_with_text),
        rows=b"".join(data[index * row_bytes : (index + 1) * row_bytes] for index in indices_with_text),
        scores=tuple(tuple(exchange.scores[index]) for index in indices_with_text),
    )


class RowsCache:
    """Disk cache for rows of neutral answers, one file for each prompt. It deletes the least recently used files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def read(
        self, reader: RowReader, prompt_objectives: PromptObjectives, answers: Sequence[AnsweredConversation]
    ) -> list[AnswerRows]:
        """Return the rows, from the cache or else read and then stored; raises the `CorrectionError` of reading."""
        path = self._find_path(reader, prompt_objectives, answers)
        rows = _unpack_rows(path)
        if rows is not None and len(rows) == len(answers):
            reader.on_progress(len(answers))
            with contextlib.suppress(OSError):
                os.utime(path)  # the time decides which files are deleted first
            return rows
        rows = await reader.read(prompt_objectives, answers)
        # if the disk is full, teaching goes on without the cache
        with contextlib.suppress(OSError):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomically(path, _pack_rows(rows))
            self._delete_old_files()
        return rows

    def _find_path(
        self, reader: RowReader, prompt_objectives: PromptObjectives, answers: Sequence[AnsweredConversation]
    ) -> Path:
        """Return the file for these rows, named by a hash of everything on which they depend."""
        texts = [[[turn.content for turn in answer.turns], answer.answer] for answer in answers]
        answers_hash = hashlib.sha256(json.dumps(texts).encode()).hexdigest()
        parts = [_FORMAT_VERSION, reader.content_hash, prompt_objectives.texts, answers_hash]
        name = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
        return self._folder / f"{name}.rows"

    def _delete_old_files(self) -> None:
        files = sorted(self._folder.glob("*.rows"), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in files[_MAX_FILES:]:
            path.unlink(missing_ok=True)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that readers see either the whole new file or the old one, even after a power cut."""
    descriptor, temporary_name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.")
    temporary_path = Path(temporary_name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary_path.replace(path)
    except BaseException:
        temporary_path.unlink(missing_ok=True)
        raise


def _pack_rows(answers: Sequence[AnswerRows]) -> bytes:
    """Encode answers: the SHA-256 of all that follows it, a line of JSON with everything except rows, and the rows.

    The line has the segments and scores of each answer. The rows of all segments follow each other; all have one size.
    """
    answer_headers = [{name: value for name, value in asdict(answer).items() if name != "rows"} for answer in answers]
    body = json.dumps(answer_headers).encode() + b"\n" + b"".join(answer.rows for answer in answers)
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
    first_line, _, row_data = body.partition(b"\n")
    answer_headers = json.loads(first_line)
    segment_count = sum(len(header["segments"]) for header in answer_headers)
    row_bytes = len(row_data) // segment_count if segment_count else 0
    answers = []
    rows_start = 0
    for header in answer_headers:
        rows_end = rows_start + row_bytes * len(header["segments"])
        segments = tuple((int(start), int(end)) for start, end in header["segments"])
        # for each segment, one score for each objective
        scores = tuple(tuple(map(float, segment_scores)) for segment_scores in header["scores"])
        answers.append(AnswerRows(segments, row_data[rows_start:rows_end], scores))
        rows_start = rows_end
    return answers
