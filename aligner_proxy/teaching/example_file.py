"""Edits of a file of examples: adding sentences with their origin, and removing sentences.

The file is replaced atomically, and only if the result is valid; in YAML comments and layout are kept. The origin of a
sentence is written after it as a comment, except in JSON and in lists in brackets, which have no room for one.
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
from aligner_proxy.policy.yaml_edit import append_item, apply_checked_edit, remove_item, replace_file
from aligner_proxy.policy.yaml_file import read_text
from aligner_proxy.teaching.examples import Examples, normalise_example, parse_examples
from aligner_proxy.teaching.rows import write_atomically
from aligner_proxy.teaching.subjects import Subject

AGAINST = "against"
FINE = "fine"
"""The lists of the file, of sentences that violate the objective and of those that do not."""
_MAX_OF_ORIGIN = 300
"""Most characters of an origin that are written."""


@dataclass(frozen=True, slots=True)
class NewExample:
    """An example to add: its text, whether it violates the objective, and its origin."""

    text: str
    against: bool
    origin: str = ""

    @property
    def list_name(self) -> str:
        """The list of the file to which it belongs."""
        return AGAINST if self.against else FINE


def example_id(text: str) -> str:
    """The id of an example in web forms: 16 hexadecimal digits of a hash of its text."""
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:16]


def present_examples(subject: Subject) -> Examples:
    """The existing examples; empty if the file does not exist yet. Raises `ConfigError`."""
    return subject.read_examples() if subject.examples.exists() else Examples(())


def add_examples(subject: Subject, sentences: Sequence[NewExample]) -> int:
    """Add the sentences that the file does not have, creating it if needed; returns how many. Raises `ConfigError`."""
    before = present_examples(subject)
    present_keys = {normalise_example(example.text) for example in (*before.against, *before.fine)}
    new: list[NewExample] = []
    for sentence in sentences:
        key = normalise_example(sentence.text)
        if key not in present_keys:
            present_keys.add(key)
            new.append(sentence)
    if new:
        _write_new(subject, new)
    return len(new)


def remove_example(subject: Subject, list_name: str, id_of_example: str) -> bool:
    """Remove an example by its `example_id`; returns False if the file does not have it. Raises `ConfigError`."""
    path = subject.examples
    before = read_text(path)
    examples = parse_examples(before, path, subject.name, subject.text)
    texts = [example.text for example in (examples.against if list_name == AGAINST else examples.fine)]
    numbers = [number for number, text in enumerate(texts) if example_id(text) == id_of_example]
    if not numbers:
        return False

    # `change` says what must become of the data, `edit` does it in the text; `apply_checked_edit` compares both.
    def change(data: dict[str, Any]) -> None:
        del data[list_name][numbers[0]]

    def edit(text: str) -> str:
        if path.suffix == ".json":
            return _change_json(text, change)
        return remove_item(text, (), list_name, numbers[0])

    _replace_checked(subject, before, apply_checked_edit(before, path, edit, change))
    return True


def _write_new(subject: Subject, new: Sequence[NewExample]) -> None:
    """Add examples to the file, or create it; raises `ConfigError`."""
    path = subject.examples

    def change(data: dict[str, Any]) -> None:
        for sentence in new:
            data[sentence.list_name] = [*(data.get(sentence.list_name) or ()), sentence.text]

    def edit(text: str) -> str:
        if path.suffix == ".json":
            return _change_json(text, change)
        for sentence in new:
            text = append_item(text, (), sentence.list_name, sentence.text, _origin_line(sentence))
        return text

    if path.exists():
        before = read_text(path)
        _replace_checked(subject, before, apply_checked_edit(before, path, edit, change))
        return
    text = edit("{}" if path.suffix == ".json" else "")
    parse_examples(text, path, subject.name, subject.text)
    try:
        write_atomically(path, text.encode())
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from None


def _replace_checked(subject: Subject, before: str, after: str) -> None:
    """Replace the file's text `before` by `after`; raises `ConfigError` if `after` is not valid."""
    parse_examples(after, subject.examples, subject.name, subject.text)
    # A mounted file may be a link into a folder that is replaced as a whole, so the target is written, the link stays.
    replace_file(Path(os.path.realpath(subject.examples)), before, after)


def _change_json(text: str, change: Any) -> str:
    """Return a JSON text after `change` has changed the data in it."""
    data = json.loads(text)
    change(data)
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


def _origin_line(sentence: NewExample) -> str:
    """The origin of a sentence as one printable line of at most `_MAX_OF_ORIGIN` characters."""
    printable = "".join(char if char.isprintable() else "?" for char in sentence.origin)
    return printable.encode("utf-8", "replace").decode()[:_MAX_OF_ORIGIN]
