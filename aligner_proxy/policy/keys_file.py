"""The keys file: hashes of the client keys for a gateway without a database, and the rights of each key.

The file is a list of entries; only sha256 and alias are required. It contains no key in plain text, and no error
message quotes one.
"""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, date, datetime, time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from aligner_proxy.errors import ConfigError
from aligner_proxy.policy.yaml_file import Block, YamlSource, explain_errors, read_yaml

MIB = 1024 * 1024
EVERY_ROUTE = "*"
_ROUTE_GLOB = re.compile(r"/\S{1,199}")


def _parse_moment(value: object) -> datetime:
    """Parse a point in time; a date alone means its midnight, and a time without a zone is in UTC.

    YAML has already turned most dates and times into objects. Raises `ValueError` for anything else.
    """
    if isinstance(value, str):
        with suppress(ValueError):
            value = datetime.fromisoformat(value)
    if isinstance(value, datetime):
        return value if value.tzinfo is not None else value.replace(tzinfo=UTC)
    if isinstance(value, date):
        return datetime.combine(value, time.min, UTC)
    raise ValueError("must be a date or a time, for example 2027-01-31 or 2027-01-31T18:00:00Z")


def _check_route_glob(text: str) -> str:
    """Return a glob of paths of LiteLLM's endpoints, or "*" for all; raises `ValueError` for anything else."""
    if text != EVERY_ROUTE and not _ROUTE_GLOB.fullmatch(text):
        raise ValueError("must be a path of LiteLLM as a glob, for example /v1/audio/*; or * for every model endpoint")
    return text


Label = Annotated[str, Field(min_length=1, max_length=200)]
RouteGlob = Annotated[str, AfterValidator(_check_route_glob)]


class Role(StrEnum):
    """The purpose of a key: calling models (client), or only the console and feedback (reviewer)."""

    CLIENT = "client"
    REVIEWER = "reviewer"


class KeyEntry(Block):
    """One client key of the keys file: its hash (never the key itself) and its rights."""

    sha256: Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$")]
    alias: Label
    team: Label | None = None
    expires: Annotated[datetime, BeforeValidator(_parse_moment)] | None = None
    """Time from which the key is refused. A date alone means its midnight; a time without a zone is in UTC."""
    models: Annotated[tuple[Label, ...], Field(min_length=1, max_length=1_000)] | None = None
    """The models that the key may call, by LiteLLM's model_name; by default all."""
    routes: Annotated[tuple[RouteGlob, ...], Field(max_length=100)] = ()
    """Model endpoints that the key may call besides the corrected ones, as globs (/v1/audio/*). Their answers are not
    corrected."""
    rpm: Annotated[int, Field(ge=1, le=1_000_000, strict=True)] | None = None
    """Maximum requests a minute, in each worker; further requests get 429."""
    max_parallel: Annotated[int, Field(ge=1, le=100_000, strict=True)] | None = None
    """Maximum requests at a time, in each worker; further requests get 429."""
    max_body_mb: Annotated[int, Field(ge=1, le=1_024, strict=True)] = 32
    """Maximum size of a request body in MiB; a larger one gets 413."""
    role: Role = Role.CLIENT
    """reviewer: the key may use only the console and feedback, for answers of its teams, and may call no model."""
    reviews: Annotated[tuple[Label, ...], Field(min_length=1, max_length=1_000)] | None = None
    """The teams whose answers a reviewer sees; by default the reviewer's own team."""

    @model_validator(mode="after")
    def _has_something_to_review(self) -> Self:
        """Refuse a reviewer's key without teams, and `reviews` for another key."""
        if self.role is Role.REVIEWER and not (self.team or self.reviews):
            raise ValueError("a reviewer needs a team, or teams in `reviews`, whose answers it sees")
        if self.role is not Role.REVIEWER and self.reviews:
            raise ValueError("`reviews` is for keys with role: reviewer")
        return self

    @property
    def reviewed_teams(self) -> tuple[str, ...]:
        """The teams whose answers this key may view; empty unless it is a reviewer's key."""
        if self.role is not Role.REVIEWER:
            return ()
        return self.reviews or ((self.team,) if self.team else ())

    @property
    def has_limits(self) -> bool:
        """Whether the key has a rate limit, so that its requests must be counted."""
        return self.rpm is not None or self.max_parallel is not None

    def is_expired(self, now: datetime) -> bool:
        """Whether the key is expired at time `now`."""
        return self.expires is not None and self.expires <= now


def load_keys(path: Path | str) -> dict[str, KeyEntry]:
    """Read a keys file, and return its entries by sha256 in lower case; raises `ConfigError` for a wrong file."""
    data, source = read_yaml(Path(path))
    if not isinstance(data, list):
        raise ConfigError(f"{source.name}:1: must be a list of {{sha256: ..., alias: ..., team: ...}}")
    try:
        entries = TypeAdapter(tuple[KeyEntry, ...]).validate_python(data)
    except ValidationError as error:
        _refuse_plain_key(error, source)
        raise explain_errors(error, source, KeyEntry) from None
    return _index_by_hash(entries, source)


def _refuse_plain_key(error: ValidationError, source: YamlSource) -> None:
    """Raise a `ConfigError` if some `sha256` is no hash. It may be the key itself, so the message does not quote it."""
    for detail in error.errors(include_url=False, include_input=False):
        if detail["loc"][-1] == "sha256" and detail["type"] == "string_pattern_mismatch":
            place = source.place_of(*detail["loc"])
            raise ConfigError(f"{place}: sha256 must be 64 hexadecimal digits: the hash of the key, not the key")


def _index_by_hash(entries: tuple[KeyEntry, ...], source: YamlSource) -> dict[str, KeyEntry]:
    """Return the entries by their hash in lower case; raises `ConfigError` for a key with two entries."""
    entry_by_hash: dict[str, KeyEntry] = {}
    for index, entry in enumerate(entries):
        digest = entry.sha256.lower()
        if digest in entry_by_hash:
            raise ConfigError(f"{source.place_of(index)}: the same key is listed twice in this file; keep one entry")
        entry_by_hash[digest] = entry
    return entry_by_hash
