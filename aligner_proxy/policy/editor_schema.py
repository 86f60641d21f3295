"""Schema of `editor` (the model that rewrites flagged segments), and the check that `second_try` has an editor.

A value is parsed into one word: `local`, `upstream`, or `model:GROUP` for the block `{model: GROUP}`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Annotated, Literal, Protocol

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from aligner_proxy.errors import ConfigError
from aligner_proxy.policy.yaml_file import KeyPath, YamlSource, suggest_name
from aligner_proxy.types import EDITOR_GROUP_PREFIX, LOCAL_EDITOR, UPSTREAM_EDITOR, IfNothingRemains

MAX_GROUP_CHARS = 200
WORDS = (LOCAL_EDITOR, UPSTREAM_EDITOR)
_MODEL = "model"
_FORMS = "must be local, upstream, or a block {model: GROUP} with a model group of the LiteLLM file"


class EditorBlock(BaseModel):
    """A separate model group that edits."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    model: Annotated[str, Field(min_length=1, max_length=MAX_GROUP_CHARS)]
    """A model group of the LiteLLM file, by its model_name."""


def _parse_word(value: object) -> object:
    """Return the value of `editor` as one word: {model: strong} becomes "model:strong". Raises `ValueError`."""
    if isinstance(value, Mapping):
        return EDITOR_GROUP_PREFIX + _read_group(value)
    if not isinstance(value, str):
        raise ValueError(_FORMS)  # noqa: TRY004 - pydantic takes ValueError alone
    names_group = value.startswith(EDITOR_GROUP_PREFIX) and value != EDITOR_GROUP_PREFIX
    if value in WORDS or names_group:
        return value
    raise ValueError(f"{_FORMS}; {suggest_name(value, WORDS)}")


def _read_group(block: Mapping[object, object]) -> str:
    """Check the block {model: GROUP} and return the group; raises `ValueError`."""
    extra_key = next((name for name in block if name != _MODEL), None)
    if extra_key is not None:
        raise ValueError(f"unknown key {extra_key!r}; the only one is {_MODEL}")
    group = block.get(_MODEL)
    if not isinstance(group, str) or not group.strip():
        raise ValueError(f"{_MODEL} must name a model group of the LiteLLM file")
    if len(group) > MAX_GROUP_CHARS:
        raise ValueError(f"{_MODEL} has {len(group):,} characters; shorten it to at most {MAX_GROUP_CHARS}")
    return group.strip()


Editor = Annotated[str, BeforeValidator(_parse_word, json_schema_input_type=Literal["local", "upstream"] | EditorBlock)]
"""The values that a policies file may have for `editor`."""


class EditorSettings(Protocol):
    """The settings of a block that these checks read."""

    @property
    def editor(self) -> str | None:
        """The model that rewrites flagged text."""

    @property
    def if_nothing_remains(self) -> IfNothingRemains | None:
        """The reaction when all of an answer is flagged."""

    @property
    def corrector(self) -> str | None:
        """The corrector used instead of the aligner."""


def editor_groups(blocks: Iterable[tuple[KeyPath, EditorSettings]]) -> dict[str, KeyPath]:
    """Return the model groups that `editor: {model: GROUP}` names, each with the key path of its first use.

    `blocks` are the blocks of the policies file that may set `editor`, each with its key path.
    """
    first_paths: dict[str, KeyPath] = {}
    for path, block in blocks:
        if block.editor is not None and block.editor.startswith(EDITOR_GROUP_PREFIX):
            group = block.editor.removeprefix(EDITOR_GROUP_PREFIX)
            first_paths.setdefault(group, (*path, "editor"))
    return first_paths


def find_outside_editor(blocks: Iterable[tuple[KeyPath, EditorSettings]]) -> KeyPath | None:
    """Return the key path of the first `editor` that is not the aligner itself; None if there is none."""
    for path, block in blocks:
        if block.editor not in (None, LOCAL_EDITOR):
            return (*path, "editor")
    return None


def check_second_try(blocks: Sequence[tuple[KeyPath, EditorSettings]], source: YamlSource) -> None:
    """Raise `ConfigError` if some request may get `if_nothing_remains: second_try` without an editor model.

    Tries every combination of defaults, one route or none, and one tenant or none; the later block wins.
    """
    defaults = [(path, block) for path, block in blocks if path[0] == "defaults"]
    routes = _unique_blocks((path, block) for path, block in blocks if path[0] == "routes")
    tenants = _unique_blocks((path, block) for path, block in blocks if path[0] == "tenants")
    for route, tenant in product([None, *routes], [None, *tenants]):
        layers = [*defaults, *(entry for entry in (route, tenant) if entry is not None)]
        reaction_paths = [path for path, block in layers if block.if_nothing_remains is not None]
        reaction = _last_set(block.if_nothing_remains for _, block in layers)
        editor = _last_set(block.editor for _, block in layers)
        if reaction is not IfNothingRemains.SECOND_TRY or editor not in (None, LOCAL_EDITOR):
            continue
        reaction_path = reaction_paths[-1]
        other_paths = [path for path, _ in layers if path not in (reaction_path, ("defaults",))]
        other_places = "".join(f", together with {source.place_of(*path)}" for path in other_paths)
        place = source.place_of(*reaction_path, "if_nothing_remains")
        raise ConfigError(
            f"{place}: if_nothing_remains: second_try needs an editor model, and "
            f"none is set here{other_places}; add editor: upstream or editor: {{model: GROUP}}, or write decline"
        )


def _unique_blocks(blocks: Iterable[tuple[KeyPath, EditorSettings]]) -> list[tuple[KeyPath, EditorSettings]]:
    """Return the blocks that differ in `if_nothing_remains` or `editor`, without those that set neither.

    Of equal blocks, the first is kept. So `check_second_try` tries fewer combinations.
    """
    first_blocks: dict[tuple[object, object], tuple[KeyPath, EditorSettings]] = {}
    for path, block in blocks:
        settings = (block.if_nothing_remains, block.editor)
        if any(value is not None for value in settings):
            first_blocks.setdefault(settings, (path, block))
    return list(first_blocks.values())


def _last_set(values: Iterable[object]) -> object:
    """The last of the values that is not None; None if there is none."""
    return next((value for value in reversed(list(values)) if value is not None), None)
