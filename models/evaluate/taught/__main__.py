"""Objectives taught by a few sentences: how often exactly what goes against them is flagged, kind by kind.

    python -m models.evaluate.taught aligner_proxy/embedded --data DATA --out runs/taught

Teaches each kind of `models/data/taught_kinds` as `aligner-proxy teach` does an objective that is the only one of its
file, from 4 and from 12 of its sentences, and has the engine judge good answers into which others of its sentences are
set (`kinds.py`), by the general head alone and by each taught head. `exact`: that segment is flagged and no other,
under whichever objective; `found`: it is flagged; `false`: neutral segments that are flagged. Nobody has checked that
the good answers go against none of the objectives, so that `false` is an upper bound.

Rows (about 15 MB a kind), heads and verdicts are kept under `--out`/kept, without texts of others: a stopped run
goes on, another seed or number of sentences reads only what is new, and changed teaching code teaches anew. A kind
takes two to three minutes on two CPU cores.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import json
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import aligner_proxy.teaching
from aligner_proxy.cli.options import silence_libraries
from aligner_proxy.engine.api import AlignRequest, Engine, require_teachable
from aligner_proxy.engine.loader import EngineSettings, open_aligner
from aligner_proxy.engine.local import LocalEngine
from aligner_proxy.errors import ConfigError, CorrectionError
from aligner_proxy.plugins import registry
from aligner_proxy.policy import config
from aligner_proxy.teaching import subjects
from aligner_proxy.teaching.examples import MIN_AGAINST
from aligner_proxy.teaching.material import count_places
from aligner_proxy.teaching.neutral import teaching_answers
from aligner_proxy.teaching.rows import RowReader, RowsCache, write_atomically
from aligner_proxy.teaching.subjects import Subject
from aligner_proxy.teaching.teach import NothingLearned, plan_material, teach_objective
from aligner_proxy.types import DEFAULT_ALIGNER, Correction, replace_surrogates
from models.data.answers import PoolAnswer, load_pool
from models.reporting import output

from .figures import (
    GENERAL,
    Results,
    SegmentVerdict,
    TaughtOutcome,
    TeachingResult,
    format_report,
    make_document,
    make_outcome,
    plot,
)
from .kinds import TaughtCase, TaughtKind, count_cases, make_cases, read_kinds, select_hosts

ANSWERS_A_SECOND = 3.0
"""Of a neutral or test answer on two CPU cores; only for the estimate at the start."""
_AT_ONCE = 4
_DEADLINE_S = 600.0


class Journal:
    """A file with the verdicts on answers that were judged already, so that a stopped run can go on.

    Each line has a hash of what was asked, and the verdicts; no text.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._verdicts_by_key: dict[str, list[SegmentVerdict]] = {}
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        for line in text.splitlines():
            try:
                key, verdicts = json.loads(line)
            except ValueError:
                continue  # where a run was stopped within a line
            self._verdicts_by_key[key] = [SegmentVerdict(*verdict) for verdict in verdicts]
        if text and not text.endswith("\n"):
            with path.open("a", encoding="utf-8") as file:
                file.write("\n")

    def __len__(self) -> int:
        return len(self._verdicts_by_key)

    def get(self, key: str) -> list[SegmentVerdict] | None:
        """The verdicts under a key; None where there are none."""
        return self._verdicts_by_key.get(key)

    def add(self, key: str, verdicts: list[SegmentVerdict]) -> None:
        """Append the verdicts to the file at once, so that nothing is lost when the run is stopped."""
        self._verdicts_by_key[key] = verdicts
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps([key, verdicts]) + "\n")


class Teacher:
    """Teaches kinds from `count` examples each, as `aligner-proxy teach` does.

    It keeps the heads, and the rows of neutral answers that they were made of.
    """

    def __init__(self, engine: Engine, aligner: str, folder: Path, kinds: Sequence[TaughtKind], count: int) -> None:
        self.count = count
        self._engine = engine
        self._aligner = aligner
        self._folder = folder
        self._builtin = {name: objective.text for name, objective in config.builtin_objectives().items()}
        self._subjects = self._write_policies(kinds)

    def _write_policies(self, kinds: Sequence[TaughtKind]) -> dict[str, Subject]:
        """Write a policies file and the files of examples, and read them again.

        Returns the subjects by the kind's slug; raises `ConfigError`.
        """
        folder = self._folder / f"from_{self.count}"
        folder.mkdir(parents=True, exist_ok=True)
        objectives: dict[str, Any] = {}
        for kind in kinds:
            if not MIN_AGAINST <= self.count <= len(kind.teaching):
                raise ConfigError(
                    f"{kind.slug}: {self.count} examples; it has {len(kind.teaching)} sentences that may teach, and "
                    f"at least {MIN_AGAINST} are needed"
                )
            examples = folder / f"{kind.slug}.yaml"
            examples.write_text(_yaml({"against": list(kind.teaching[: self.count])}), encoding="utf-8")
            objectives[kind.slug] = {"text": kind.objective, "examples": examples.name}
        path = folder / "policies.yaml"
        path.write_text(_yaml({"objectives": objectives}), encoding="utf-8")
        return {subject.name: subject for subject in subjects.select_subjects(registry.load_policies(path), ())}

    @property
    def prompts(self) -> int:
        """How many answers with examples in them are read for one head, beside the neutral answers."""
        # As they are, as often mentioned, and every second one said in earnest.
        return 2 * self.count * count_places(self.count) + self.count // 2

    def knows(self, kind: TaughtKind) -> bool:
        """Whether the head of a kind was kept by an earlier run."""
        return self._path(self._subjects[kind.slug]).exists()

    async def teach(self, kind: TaughtKind, advanced: Callable[[int], None]) -> TeachingResult:
        """Teach a kind, or take its head of an earlier run; raises `CorrectionError`."""
        subject = self._subjects[kind.slug]
        path = self._path(subject)
        if path.exists():
            advanced(self.prompts + len(teaching_answers()))
            return _unpack_result(json.loads(path.read_text(encoding="utf-8")))
        result = await self._teach(subject, advanced)
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, json.dumps(_pack_result(result)).encode())
        return result

    async def _teach(self, subject: Subject, advanced: Callable[[int], None]) -> TeachingResult:
        """Teach a kind; without a head where nothing could be learned."""
        examples = subject.read_examples()
        planned = plan_material(subject, examples, self._builtin)
        reader = RowReader(require_teachable(self._engine), DEFAULT_ALIGNER, self._aligner, advanced)
        # A folder for each kind: one for all would let go of the rows that were not used for longest.
        cache = RowsCache(self._folder / "rows" / subject.name)
        try:
            learned = await teach_objective(subject, examples, planned, reader, cache, DEFAULT_ALIGNER)
        except NothingLearned as error:
            return TeachingResult(subject.name, self.count, None, why=str(error))
        version = learned.version
        return TeachingResult(
            kind=subject.name,
            examples=self.count,
            head=learned.head,
            found=(version.found.hits, version.found.of),
            false=(version.false.hits, version.false.of),
            threshold=version.threshold,
            seconds=learned.seconds,
        )

    def _path(self, subject: Subject) -> Path:
        """The file of a kind's head. Its name has a hash of all that decides the head."""
        key = _digest([self._aligner, subject.text, subject.read_examples().digest, _recipe()])
        return self._folder / "heads" / f"{subject.name}-{self.count}-{key[:16]}.json"


def _yaml(document: object) -> str:
    return yaml.safe_dump(document, allow_unicode=True, sort_keys=False, width=1000)


def _digest(document: object) -> str:
    return hashlib.sha256(json.dumps(document).encode()).hexdigest()


@cache
def _recipe() -> str:
    """A hash of the code that teaches and of the neutral answers: other code makes another head."""
    folder = Path(aligner_proxy.teaching.__file__).parent
    files = sorted([*folder.glob("*.py"), *folder.glob("*.jsonl")])
    return _digest([[path.name, hashlib.sha256(path.read_bytes()).hexdigest()] for path in files])


def _pack_result(result: TeachingResult) -> dict[str, Any]:
    return asdict(result) | {"head": None if result.head is None else base64.b64encode(result.head).decode("ascii")}


def _unpack_result(row: dict[str, Any]) -> TeachingResult:
    head = None if row["head"] is None else base64.b64decode(row["head"])
    return TeachingResult(**row | {"head": head, "found": tuple(row["found"]), "false": tuple(row["false"])})


@dataclass
class Study:
    """The whole measurement: each kind is taught, and judged in test answers.

    `folder` holds what is kept from one run to the next.
    """

    engine: Engine
    folder: Path
    kinds: Sequence[TaughtKind]
    hosts: Sequence[PoolAnswer]
    """Good answers that teaching never saw."""
    others: Sequence[TaughtKind] = ()
    """Kinds that may keep each other company."""
    counts: Sequence[int] = (4, 12)
    """Examples to teach from."""
    seed: int = 1
    limit: int | None = None
    """Cases of each trial of a kind at most."""
    advanced: Callable[[int], None] = lambda _: None
    """Called with the number of answers that were read, or known."""

    async def start(self) -> None:
        """Open what earlier runs kept; raises `ConfigError` and `CorrectionError`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._journal = Journal(self.folder / "verdicts.jsonl")
        self._aligner = (await self.engine.info()).content_hash
        self._teachers = [Teacher(self.engine, self._aligner, self.folder, self.kinds, count) for count in self.counts]

    @property
    def prompts(self) -> int:
        """About how many answers the whole measurement reads, with those that are kept."""
        teaching = sum(teacher.prompts + len(teaching_answers()) for teacher in self._teachers) * len(self.kinds)
        return teaching + self._cases()

    @property
    def unread_count(self) -> int:
        """About how many answers are still to be read."""
        teaching = 0
        for kind in self.kinds:
            unread = [teacher.prompts for teacher in self._teachers if not teacher.knows(kind)]
            teaching += sum(unread) + (len(teaching_answers()) if unread else 0)
        return teaching + max(0, self._cases() - len(self._journal))

    def _cases(self) -> int:
        """How many test answers are judged, under the general head and under each taught one."""
        return sum(count_cases(kind, self.limit) for kind in self.kinds) * (1 + len(self._teachers))

    async def measure(self) -> AsyncIterator[Results]:
        """Yield all results so far after each kind; raises `CorrectionError`."""
        teachings: list[TeachingResult] = []
        outcomes: list[TaughtOutcome] = []
        for n, kind in enumerate(self.kinds, start=1):
            teachings_of_kind = [await teacher.teach(kind, self.advanced) for teacher in self._teachers]
            teachings += teachings_of_kind
            outcomes += await self._judge(kind, [TeachingResult(kind.slug, GENERAL, None), *teachings_of_kind])
            yield Results(self._aligner, tuple(self.kinds[:n]), tuple(teachings), tuple(outcomes))

    async def _judge(self, kind: TaughtKind, teachings_of_kind: Sequence[TeachingResult]) -> list[TaughtOutcome]:
        """Judge the test answers of one kind under each head: the general one, and those that examples taught."""
        heads = require_teachable(self.engine)
        names = [await heads.put_head(teaching.head) if teaching.head else "" for teaching in teachings_of_kind]
        builtin = {name: objective.text for name, objective in config.builtin_objectives().items()}
        test_cases = make_cases(kind, self.others, builtin, self.hosts, self.seed, self.limit)
        result: list[TaughtOutcome] = []
        for first in range(0, len(test_cases), _AT_ONCE):
            batch = test_cases[first : first + _AT_ONCE]
            for teaching, name in zip(teachings_of_kind, names, strict=True):
                verdicts = await asyncio.gather(*(self._find_verdicts(case, name) for case in batch))
                result += [
                    make_outcome(kind.slug, teaching.examples, case, segment_verdicts)
                    for case, segment_verdicts in zip(batch, verdicts, strict=True)
                ]
                self.advanced(len(batch))
        return result

    async def _find_verdicts(self, case: TaughtCase, head: str) -> list[SegmentVerdict]:
        """The engine's verdicts on an answer at caution 0, from the journal where they are known."""
        texts = case.company.texts
        head_hashes = tuple(head if n == case.company.index else "" for n in range(len(texts)))
        request = AlignRequest(
            request_id="taught",
            turns=case.planted.neutral.turns,
            answer=replace_surrogates(case.planted.neutral.answer),
            objectives=texts,
            common=len(texts),
            deadline_s=_DEADLINE_S,
            score_only=True,
            heads=head_hashes if head else (),
        )
        asked_fields = request.model_dump(mode="json", include={"turns", "answer", "objectives", "caution", "heads"})
        key = _digest([self._aligner, asked_fields])
        verdicts = self._journal.get(key)
        if verdicts is None:
            verdicts = list_verdicts(request.answer, await self.engine.align(request))
            self._journal.add(key, verdicts)
        return verdicts


def list_verdicts(answer: str, correction: Correction) -> list[SegmentVerdict]:
    """The verdicts with their places in the answer. The verdict on the end has no place, so it is left out."""
    result: list[SegmentVerdict] = []
    end = 0
    for segment in correction.segments:
        if segment.text:
            start = answer.index(segment.text, end)
            end = start + len(segment.text)
            objective = -1 if segment.objective is None else segment.objective
            score = round(segment.score or 0.0, 4)
            result.append(SegmentVerdict(start, end, segment.flagged, objective, score))
    return result


def _save(study: Study, results: Results, out: Path) -> None:
    settings = {"examples": study.counts, "seed": study.seed, "limit": study.limit, "hosts": len(study.hosts)}
    output.write(out, "taught", format_report(results, study.counts), settings | make_document(results, study.counts))


async def measure_kinds(
    aligner: Path,
    data: Path,
    out: Path,
    slugs: Sequence[str] = (),
    counts: Sequence[int] = (4, 12),
    limit: int | None = None,
    seed: int = 1,
) -> Results:
    """Teach and judge the kinds `slugs` (all where none is named), and write the results after each kind."""
    all_kinds = read_kinds()
    kinds = read_kinds(slugs=slugs)
    hosts = select_hosts(load_pool(data, "dev").answers)
    silence_libraries()
    engine = LocalEngine(lambda: open_aligner(EngineSettings(aligner), config.home_folder()))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    try:
        await engine.start()
        study = Study(
            engine,
            out / "kept",
            kinds,
            hosts=hosts,
            others=all_kinds,
            counts=tuple(dict.fromkeys(counts)),
            seed=seed,
            limit=limit,
        )
        await study.start()
        minutes = study.unread_count / ANSWERS_A_SECOND / 60
        print(
            f"{len(kinds)} kinds, {len(hosts)} good answers, about {study.unread_count:,} answers to read: "
            f"{minutes:.0f} minutes at {ANSWERS_A_SECOND:g} a second, less where short ones are read faster",
            flush=True,
        )
        with Progress(*columns, console=Console(stderr=True)) as progress:
            bar = progress.add_task("answers", total=study.prompts)
            study.advanced = lambda count: progress.advance(bar, count)
            async for results in study.measure():
                _save(study, results, out)
        plot(results, study.counts, out / "taught.svg")
        return results
    finally:
        await engine.aclose()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("aligner", type=Path, help="aligner folder")
    parser.add_argument("--data", type=Path, required=True, help="folder with the research data")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--kinds", nargs="+", default=(), metavar="SLUG", help="all, those far from training first")
    parser.add_argument("--examples", type=int, nargs="+", default=(4, 12), metavar="N", help="examples to teach from")
    parser.add_argument("--limit", type=int, help="test answers of each sort a kind at most")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.limit is not None and arguments.limit < 1:
        parser.error("--limit: must be 1 or more")
    try:
        measuring = measure_kinds(
            arguments.aligner,
            arguments.data,
            arguments.out,
            arguments.kinds,
            arguments.examples,
            arguments.limit,
            arguments.seed,
        )
        print(format_report(asyncio.run(measuring), tuple(dict.fromkeys(arguments.examples))))
    except (ConfigError, CorrectionError) as problem:
        sys.exit(str(problem))


if __name__ == "__main__":
    main()
