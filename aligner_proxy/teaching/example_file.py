"""Edits of an objective's file of examples: adding sentences with their origin, and removing sentences. A subject is an
objective that has a file of examples.

The file is replaced atomically, and only if the result is valid; in YAML, comments and layout are kept. The origin of a
sentence is written after it as a comment, except in JSON and in lists in brackets, which have no room for one.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
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
"""The names of the file's lists, of sentences that violate the objective and of sentences that do not."""
_MAX_ORIGIN_CHARS = 300
"""Most characters of an origin that are written."""


@dataclass(frozen=True, slots=True)
class NewExample:
    """An example to add: its text, whether it violates the objective, and its origin (a comment for people)."""

    text: str
    against: bool
    origin: str = ""

    @property
    def list_name(self) -> str:
        """The name of the file's list to which the example belongs."""
        return AGAINST if self.against else FINE


def example_id(text: str) -> str:
    """Return the id of an example in web forms: 16 hexadecimal digits of a hash of its text."""
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:16]


def present_examples(subject: Subject) -> Examples:
    """Return the examples in the subject's file; none if the file does not exist yet. Raises `ConfigError`."""
    return subject.read_examples() if subject.examples.exists() else Examples(())


def add_examples(subject: Subject, sentences: Sequence[NewExample]) -> int:
    """Add the sentences that the file lacks, creating it if needed; returns their number. Raises `ConfigError`."""
    existing = present_examples(subject)
    known_texts = {normalise_example(example.text) for example in (*existing.against, *existing.fine)}
    new_sentences: list[NewExample] = []
    for sentence in sentences:
        normalised_text = normalise_example(sentence.text)
        if normalised_text not in known_texts:
            known_texts.add(normalised_text)
            new_sentences.append(sentence)
    if new_sentences:
        _write_sentences(subject, new_sentences)
    return len(new_sentences)


def remove_example(subject: Subject, list_name: str, id_of_example: str) -> bool:
    """Remove an example by its `example_id`; returns whether the list had it. Raises `ConfigError`."""
    path = subject.examples
    old_text = read_text(path)
    examples = parse_examples(old_text, path, subject.name, subject.text)
    texts = [example.text for example in (examples.against if list_name == AGAINST else examples.fine)]
    matching_indices = [index for index, text in enumerate(texts) if example_id(text) == id_of_example]
    if not matching_indices:
        return False
    index = matching_indices[0]

    def change_data(data: dict[str, Any]) -> None:
        del data[list_name][index]

    def edit_yaml(text: str) -> str:
        return remove_item(text, (), list_name, index)

    _edit_file(subject, old_text, edit_yaml, change_data)
    return True


def _write_sentences(subject: Subject, sentences: Sequence[NewExample]) -> None:
    """Append sentences to the lists of the subject's file, or create the file; raises `ConfigError`."""
    path = subject.examples

    def change_data(data: dict[str, Any]) -> None:
        for sentence in sentences:
            data[sentence.list_name] = [*(data.get(sentence.list_name) or ()), sentence.text]

    def edit_yaml(text: str) -> str:
        for sentence in sentences:
            text = append_item(text, (), sentence.list_name, sentence.text, _write_origin(sentence))
        return text

    if path.exists():
        _edit_file(subject, read_text(path), edit_yaml, change_data)
        return
    text = _change_json("{}", change_data) if path.suffix == ".json" else edit_yaml("")
    parse_examples(text, path, subject.name, subject.text)  # raises if the new file would not be valid
    try:
        write_atomically(path, text.encode())
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from None


def _edit_file(
    subject: Subject, old_text: str, edit_yaml: Callable[[str], str], change_data: Callable[[dict[str, Any]], None]
) -> None:
    """Change the subject's file; raises `ConfigError` if it would not be valid, or not have the changed data.

    The file must still have `old_text`, so that no edit by somebody else is lost.
    """
    path = subject.examples
    edit_text = partial(_change_json, change_data=change_data) if path.suffix == ".json" else edit_yaml
    new_text = apply_checked_edit(old_text, path, edit_text, change_data)
    parse_examples(new_text, path, subject.name, subject.text)
    # a mounted file may be a link into a folder that is replaced as a whole, so the link stays and its target is
    # written
    replace_file(Path(os.path.realpath(path)), old_text, new_text)


def _change_json(text: str, change_data: Callable[[dict[str, Any]], None]) -> str:
    """Return a JSON text after `change_data` has changed the data that it holds."""
    data = json.loads(text)
    change_data(data)
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


def _write_origin(sentence: NewExample) -> str:
    """Return the origin of a sentence as one printable line of at most `_MAX_ORIGIN_CHARS` characters."""
    printable = "".join(char if char.isprintable() else "?" for char in sentence.origin)
    return printable.encode("utf-8", "replace").decode()[:_MAX_ORIGIN_CHARS]
