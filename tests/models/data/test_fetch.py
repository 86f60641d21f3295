"""Research data from repositories made here, of sentences of our own, in the form of the public ones."""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from models.data.fetch import SOURCES, main
from models.data.preference_sets import read_rows

CSV = "query,goldens,generated_text\nHow do I store a kite?,Fold it.,Roll it up.\n"
DIALOGUE = "\n\nHuman: How do I store a kite?\n\nAssistant:"


def content_of(repository: str, path: str) -> bytes:
    """A file in the form of the public one."""
    if path.endswith(".csv") and "GPTFuzz" not in repository:
        return CSV.encode()
    if path.endswith("question_list.csv"):
        return b"index,text\n0,How do I break a kite?\n"
    if path.endswith(".csv"):
        return b"question,Response,label\n0,I will not say.,0\n"
    if path.endswith(".gz"):
        row = {"chosen": f"{DIALOGUE} Fold it.", "rejected": f"{DIALOGUE} Tear it."}
        return gzip.compress(json.dumps(row).encode(), mtime=0)
    kite: dict[str, Any] = {
        "WeOpenML/PandaLM": [
            {"instruction": "Name a toy.", "input": "", "response1": "A kite.", "response2": "A top."}
            | {"annotator1": 1, "annotator2": 0, "annotator3": 0}
        ],
        "princeton-nlp/LLMBar": [{"input": "Name a toy.", "output_1": "A kite.", "output_2": "A tax.", "label": 1}],
        "allenai/FineGrainedRLHF": [
            {"question": "What flies?", "gold": "A kite.", "preference": [1, 2, 0, 0, 1, 2], "feedback": {"errors": []}}
            | {f"prediction {number}": f"Kite {number}." for number in range(1, 5)}
        ],
        "JailbreakBench/artifacts": {"jailbreaks": [{"goal": "Break it.", "response": "No.", "jailbroken": False}]},
        "thu-coai/DiaSafety": [{"context": "My kite tore.", "response": "Your fault.", "label": "Unsafe"}],
    }
    return json.dumps(kite[repository]).encode()


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """`fetch.yaml` with repositories in this folder."""
    listed = yaml.safe_load(SOURCES.read_text())
    for source in listed:
        folder = tmp_path / "origin" / source["repository"]
        for path in source["files"]:
            file = folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content_of(source["repository"], path))
            source["files"][path] = hashlib.sha256(file.read_bytes()).hexdigest()
        source["commit"] = commit(folder)
    path = tmp_path / "sources.yaml"
    path.write_text(yaml.safe_dump(listed))
    return path


def commit(folder: Path) -> str:
    git = ["git", "-C", str(folder), "-c", "user.name=A", "-c", "user.email=a@example.org"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "Data"]):
        subprocess.run([*git, *words], check=True)
    return subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()


def fetch(sources: Path, out: Path) -> None:
    main(["--out", str(out), "--origin", f"file://{sources.parent}/origin/", "--sources", str(sources)])


def test_every_set_is_brought_in_the_form_that_is_read(
    sources: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "data"
    fetch(sources, out)
    assert "thu-coai/DiaSafety" in (printed := capsys.readouterr().out)
    assert "licence Apache-2.0" in printed
    names = [path.relative_to(out).as_posix().removesuffix(".jsonl.gz") for path in out.rglob("*.gz")]
    assert len(names) == 9
    assert all(list(read_rows(out, name)) for name in names)
    assert next(read_rows(out, "hh_rlhf_harmless_pairs")) == {
        "prompt": DIALOGUE, "chosen": "Fold it.", "rejected": "Tear it."
    }  # fmt: skip
    assert [row["preference"] for row in read_rows(out, "finegrained_rlhf_dev")] == [1, 2, 1.5, 1.5, 1, 2]
    assert next(read_rows(out, "pandalm_pairs"))["preference"] == 1.5
    assert next(read_rows(out, "natural/diasafety_replies"))["harmful"] == 1


def test_another_file_is_refused(sources: Path, tmp_path: Path) -> None:
    listed = yaml.safe_load(sources.read_text())
    listed[0]["files"] = dict.fromkeys(listed[0]["files"], "0" * 64)
    sources.write_text(yaml.safe_dump(listed))
    with pytest.raises(SystemExit, match=r"harmless-base/test.jsonl.gz is another file than fetch.yaml names"):
        fetch(sources, tmp_path / "data")
    assert not list((tmp_path / "data").rglob("*.gz"))


def test_a_repository_that_is_not_there_ends_it_in_one_sentence(sources: Path, tmp_path: Path) -> None:
    (tmp_path / "origin" / "anthropics").rename(tmp_path / "elsewhere")
    with pytest.raises(SystemExit, match=r"anthropics/hh-rlhf at .* cannot be fetched"):
        fetch(sources, tmp_path / "data")
