"""Which keys are there, and whose? Reads the keys file, which holds hashes of keys and never a key."""

from __future__ import annotations

from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from aligner_proxy.errors import ConfigError
from aligner_proxy.policy_file import KeyEntry
from aligner_proxy.provenance import Source, explain, read


def load_keys(path: Path | str) -> dict[str, KeyEntry]:
    """Read a keys file: a list of {sha256, alias, team}; the result is by sha256 in lower case."""
    data, source = read(Path(path))
    if not isinstance(data, list):
        raise ConfigError(f"{source.name}:1: must be a list of {{sha256: ..., alias: ..., team: ...}}")
    try:
        entries = TypeAdapter(tuple[KeyEntry, ...]).validate_python(data)
    except ValidationError as error:
        _refuse_plain_key(error, source)
        raise explain(error, source, KeyEntry) from None
    return _by_hash(entries, source)


def _refuse_plain_key(error: ValidationError, source: Source) -> None:
    for detail in error.errors(include_url=False, include_input=False):
        if detail["loc"][-1] == "sha256" and detail["type"] == "string_pattern_mismatch":
            raise ConfigError(
                f"{source.at(*detail['loc'])}: sha256 must be 64 hexadecimal digits: the hash of the key, not the key"
            )


def _by_hash(entries: tuple[KeyEntry, ...], source: Source) -> dict[str, KeyEntry]:
    found: dict[str, KeyEntry] = {}
    for i, entry in enumerate(entries):
        digest = entry.sha256.lower()
        if digest in found:
            raise ConfigError(f"{source.at(i)}: the same key stands twice in this file; keep one entry")
        found[digest] = entry
    return found
