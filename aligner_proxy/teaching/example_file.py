"""Changes of a file of examples: sentences that are added, with where they come from, and such that are taken back.

The file is replaced atomically, and only by one that can be taught from; in YAML comments and layout stay. Where a
sentence comes from stands behind it as a comment, which JSON and lists in brackets have no room for.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aligner_proxy.errors import ConfigError
from aligner_proxy.policy.yaml_file import append, intended, read_text, remove, rewrite
from aligner_proxy.teaching.examples import Examples, fold_example, parse_examples
from aligner_proxy.teaching.rows import write_atomically
from aligner_proxy.teaching.subjects import Subject

AGAINST = "against"
FINE = "fine"
_MOST_OF_ORIGIN = 300


@dataclass(frozen=True, slots=True)
class NewExample:
    """An example to be added: whether it goes against the objective, and where it comes from."""

    text: str
    against: bool
    origin: str = ""

    @property
    def list_name(self) -> str:
        """The list that it belongs to."""
        return AGAINST if self.against else FINE


def example_id(text: str) -> str:
    """What an example is called in forms."""
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:16]


def present_examples(subject: Subject) -> Examples:
    """The examples that there are; none where the file is not there yet. Raises `ConfigError`."""
    return subject.read() if subject.examples.exists() else Examples(())


def add_examples(subject: Subject, sentences: Sequence[NewExample]) -> int:
    """Add those that are not there yet; how many. Begins the file where there is none. Raises `ConfigError`."""
    before = present_examples(subject)
    there = {fold_example(example.text) for example in (*before.against, *before.fine)}
    new: list[NewExample] = []
    for sentence in sentences:
        key = fold_example(sentence.text)
        if key not in there:
            there.add(key)
            new.append(sentence)
    if new:
        _write(subject, new)
    return len(new)


def remove_example(subject: Subject, list_name: str, id_of_example: str) -> bool:
    """Take an example back by its `example_id`; False where it is gone already. Raises `ConfigError`."""
    path = subject.examples
    before = read_text(path)
    examples = parse_examples(before, path, subject.name, subject.text)
    texts = [example.text for example in (examples.against if list_name == AGAINST else examples.fine)]
    numbers = [number for number, text in enumerate(texts) if example_id(text) == id_of_example]
    if not numbers:
        return False

    def change(data: dict[str, Any]) -> None:
        del data[list_name][numbers[0]]

    def edit(text: str) -> str:
        if path.suffix == ".json":
            return _change_json(text, change)
        return remove(text, (), list_name, numbers[0])

    _replace(subject, before, intended(before, path, edit, change))
    return True


def _write(subject: Subject, new: Sequence[NewExample]) -> None:
    path = subject.examples

    def change(data: dict[str, Any]) -> None:
        for sentence in new:
            data[sentence.list_name] = [*(data.get(sentence.list_name) or ()), sentence.text]

    def edit(text: str) -> str:
        if path.suffix == ".json":
            return _change_json(text, change)
        for sentence in new:
            text = append(text, (), sentence.list_name, sentence.text, _origin(sentence))
        return text

    if path.exists():
        before = read_text(path)
        _replace(subject, before, intended(before, path, edit, change))
        return
    text = edit("{}" if path.suffix == ".json" else "")
    parse_examples(text, path, subject.name, subject.text)
    try:
        write_atomically(path, text.encode())
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from None


def _replace(subject: Subject, before: str, after: str) -> None:
    parse_examples(after, subject.examples, subject.name, subject.text)
    # A mounted file may be a link into a folder that is replaced as a whole; the link itself stays.
    rewrite(Path(os.path.realpath(subject.examples)), before, after)


def _change_json(text: str, change: Any) -> str:
    data = json.loads(text)
    change(data)
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


def _origin(sentence: NewExample) -> str:
    """Where it comes from, on one line."""
    printable = "".join(char if char.isprintable() else "?" for char in sentence.origin)
    return printable.encode("utf-8", "replace").decode()[:_MOST_OF_ORIGIN]
