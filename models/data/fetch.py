"""Public research data, fetched from their repositories and written in the form that `preference_sets` reads.

    python -m models.data.fetch --out DATA

`fetch.yaml` names repositories, commits, licences, and the sha256 of each file. The command fetches them by git, and
ends with an error if a file has another hash. The sets are complete. `models.data.test_sets` divides them by prompt, so
figures on them cannot be compared with figures on the test parts of others. `imhi_outputs` is not fetched, as no recipe
reads it.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

from .preference_sets import PreferenceError
from .public_sets import PublicRow, convert_hh_rlhf

SOURCES = Path(__file__).with_suffix(".yaml")
_ORIGIN = "https://github.com/"
_TIMEOUT_S = 1800
"""Seconds that one command of git may take."""
_TIE = 1.5
Row = dict[str, Any]
Files = Mapping[str, bytes]


class FetchError(ValueError):
    """Data that cannot be fetched; the text says which and why."""


class FetchedRepository(BaseModel):
    """One repository at one commit, and the sha256 of the files that are read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    repository: str
    commit: str
    licence: str
    files: dict[str, str]


def read_files(source: FetchedRepository, origin: str) -> dict[str, bytes]:
    """The files of a source by path, fetched by git. Raises `FetchError` if one is missing or has another hash."""
    with TemporaryDirectory() as folder:
        _run_git(source, folder, "init", "--quiet")
        _run_git(source, folder, "fetch", "--quiet", "--depth", "1", f"{origin}{source.repository}", source.commit)
        files = {path: _run_git(source, folder, "show", f"{source.commit}:{path}") for path in source.files}
    for path, content in files.items():
        if hashlib.sha256(content).hexdigest() != source.files[path]:
            raise FetchError(f"{source.repository}: {path} is another file than fetch.yaml names (sha256)")
    return files


def _run_git(source: FetchedRepository, folder: str, *words: str) -> bytes:
    """The output of a git command in `folder`; raises `FetchError` with git's last line."""
    environment = os.environ | {"GIT_TERMINAL_PROMPT": "0"}
    try:
        result = subprocess.run(
            ["git", "-C", folder, *words], capture_output=True, check=False, timeout=_TIMEOUT_S, env=environment
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FetchError(f"{source.repository}: git failed ({type(error).__name__})") from None
    if result.returncode:
        lines = result.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise FetchError(f"{source.repository} at {source.commit[:12]} cannot be fetched: {lines[-1]}")
    return result.stdout


# ---------------------------------------------------------------- rows of each set


def _read_table(content: bytes) -> Iterator[dict[str, str]]:
    return csv.DictReader(io.StringIO(content.decode("utf-8", errors="replace").replace("\0", ""), newline=""))


def _convert_hh_rlhf(files: Files) -> Iterator[Row]:
    for path, content in files.items():
        for number, line in enumerate(gzip.decompress(content).decode().splitlines(), 1):
            try:
                ranked = convert_hh_rlhf(PublicRow(json.loads(line), f"{path}:{number}"), "harmless")
            except PreferenceError:
                continue  # a few dialogues differ before their last reply, and compare nothing
            better, worse = ranked.responses
            yield {"prompt": ranked.query.replace(" \n\nAssistant:", "\n\nAssistant:"), "chosen": better.text,
                   "rejected": worse.text}  # fmt: skip


def _convert_outputs(files: Files, part: str) -> Iterator[Row]:
    """Rows of the files whose path has `part` in it; each file has the outputs of one model."""
    names = {"Claude-3": "Claude-3-Sonnet", "llama2-chat-70B": "LLaMA2-chat-70B"}
    for path, content in files.items():
        if part in path:
            model = names.get(Path(path).stem, Path(path).stem)
            for row in _read_table(content):
                if row["generated_text"] and row["generated_text"].strip():
                    yield {"prompt": row["query"], "golden": row["goldens"], "model": model,
                           "output": row["generated_text"]}  # fmt: skip


def _convert_pandalm(files: Files) -> Iterator[Row]:
    """The verdict of a row is that of most of its three annotators."""
    for content in files.values():
        for row in json.loads(content):
            votes = [row[f"annotator{number}"] for number in (1, 2, 3)]
            verdict = max(set(votes), key=votes.count)
            yield {"prompt": _join_input(row["instruction"], row["input"]), "response_1": str(row["response1"]),
                   "response_2": str(row["response2"]), "preference": float(verdict) or _TIE}  # fmt: skip


def _convert_llmbar(files: Files) -> Iterator[Row]:
    for path, content in files.items():
        subset = path.removeprefix("Dataset/").removesuffix("/dataset.json")
        for row in json.loads(content):
            yield {"prompt": row["input"], "response_1": row["output_1"], "response_2": row["output_2"],
                   "preference": float(row["label"]), "subset": subset}  # fmt: skip


def _convert_finegrained(files: Files) -> Iterator[Row]:
    """Each row compares four predictions, which make six pairs."""
    for content in files.values():
        for number, row in enumerate(json.loads(content)):
            for (first, second), verdict in zip(combinations(range(1, 5), 2), row["preference"], strict=True):
                yield {"prompt": row["question"], "response_1": row[f"prediction {first}"],
                       "response_2": row[f"prediction {second}"], "preference": float(verdict) or _TIE,
                       "pair": [first, second], "idx": number, "gold": row["gold"],
                       "prediction_1_errors": row["feedback"]["errors"]}  # fmt: skip


def _convert_gptfuzz(files: Files) -> Iterator[Row]:
    tables = {Path(path).stem: list(_read_table(content)) for path, content in files.items()}
    questions = {row["index"]: row["text"] for row in tables.pop("question_list")}
    for rows in tables.values():
        for row in rows:
            yield {"prompt": questions[row["question"]], "output": row["Response"], "harmful": int(row["label"])}


def _convert_jailbreakbench(files: Files) -> Iterator[Row]:
    for content in files.values():
        for row in json.loads(content)["jailbreaks"]:
            if row["response"]:
                yield {"prompt": row["goal"], "output": row["response"], "harmful": int(row["jailbroken"])}


def _convert_diasafety(files: Files) -> Iterator[Row]:
    for content in files.values():
        for row in json.loads(content):
            yield {"prompt": row["context"], "output": row["response"], "harmful": int(row["label"] == "Unsafe")}


def _join_input(instruction: str, input_text: str) -> str:
    return f"{instruction}\n\n{input_text}" if input_text else instruction


_CONVERTERS: Mapping[str, Mapping[str, Callable[[Files], Iterable[Row]]]] = {
    "anthropics/hh-rlhf": {"hh_rlhf_harmless_pairs": _convert_hh_rlhf},
    "SteveKGYang/MetaAligner": {
        "metaaligner_hh_outputs": lambda files: _convert_outputs(files, "HH-RLHF"),
        "metaaligner_ultrafeedback_outputs": lambda files: _convert_outputs(files, "UltraFeedback"),
    },
    "WeOpenML/PandaLM": {"pandalm_pairs": _convert_pandalm},
    "princeton-nlp/LLMBar": {"llmbar_pairs": _convert_llmbar},
    "allenai/FineGrainedRLHF": {"finegrained_rlhf_dev": _convert_finegrained},
    "sherdencooper/GPTFuzz": {"natural/gptfuzz_labelled_replies": _convert_gptfuzz},
    "JailbreakBench/artifacts": {"natural/jailbreakbench_replies": _convert_jailbreakbench},
    "thu-coai/DiaSafety": {"natural/diasafety_replies": _convert_diasafety},
}


def fetch_source(source: FetchedRepository, origin: str, out: Path) -> dict[str, int]:
    """Fetch one source and write its sets; return the number of rows of each. Sets that are there already are kept."""
    converters = _CONVERTERS.get(source.repository)
    if converters is None:
        raise FetchError(f"{source.repository}: no reader for it; known: {', '.join(_CONVERTERS)}")
    paths = {name: out / f"{name}.jsonl.gz" for name in converters}
    if all(path.is_file() for path in paths.values()):
        return {}
    files = read_files(source, origin)
    return {name: _write_rows(paths[name], convert(files)) for name, convert in converters.items()}


def _write_rows(path: Path, rows: Iterable[Row]) -> int:
    """Write rows as packed JSON lines, without a time stamp: equal rows make equal bytes. Return their number."""
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".part")
    draft.write_bytes(gzip.compress("".join(lines).encode(), mtime=0))
    draft.replace(path)
    return len(lines)


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m models.data.fetch", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the research data")
    parser.add_argument("--origin", default=_ORIGIN, help="what stands before owner/name (default: %(default)s)")
    parser.add_argument("--sources", type=Path, default=SOURCES, help="repositories, commits and hashes")
    options = parser.parse_args(argv)
    sources = [
        FetchedRepository.model_validate(row) for row in yaml.safe_load(options.sources.read_text(encoding="utf-8"))
    ]
    try:
        for source in sources:
            print(f"{source.repository} at {source.commit[:12]}, licence {source.licence}", flush=True)
            for name, count in fetch_source(source, options.origin, options.out).items():
                print(f"  {options.out / name}.jsonl.gz: {count} rows")
    except FetchError as problem:
        sys.exit(str(problem))


if __name__ == "__main__":
    main()
