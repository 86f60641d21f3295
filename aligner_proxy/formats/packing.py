"""Compact storage for the chunks of a held stream.

A chunk of LiteLLM takes some 3 kB of objects for a few letters. All waiting chunks but the first are therefore stored
as a reference to a similar chunk and the values that differ: the text, a number, a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

_Path = tuple[str | int, ...]
"""Field names and list indices that lead to one value in a chunk."""
Paths = tuple[_Path, ...]
_MAX_DIFFERENCES = 4
"""With more values that differ, a chunk is stored as it is."""
_PLAIN_TYPES = (str, int, float, type(None))
"""Immutable types, whose values can be stored on their own."""


class _TooDifferent(Exception):
    """Two chunks differ in more than `_MAX_DIFFERENCES` plain values, or in their structure."""


@dataclass(frozen=True, slots=True)
class PackedChunk:
    """A chunk stored as a template chunk and the values that differ from it."""

    template: Any
    paths: Paths
    """Where the values that differ belong, in the order of `values`."""
    values: tuple[object, ...]

    def unpack(self) -> object:
        """Rebuild the chunk; it equals the packed one but is a different object."""
        chunk = self.template.model_copy()
        for path, value in zip(self.paths, self.values, strict=True):
            _set_in_copy(chunk, self.template, path, value)
        return chunk


class Packer:
    """Packs the chunks of one stream."""

    def __init__(self) -> None:
        self._template: BaseModel | None = None
        """The last chunk that was not packed, to which the next ones are compared; None before the first."""
        self._paths: Paths = ()
        """The paths of the last packed chunk."""

    def pack(self, chunk: object) -> object:
        """Return the chunk as its differences from the template; one that differs too much becomes the new template."""
        if not isinstance(chunk, BaseModel):
            return chunk
        if self._template is not None:
            differences: list[tuple[_Path, object]] = []
            try:
                _compare(chunk, self._template, (), differences)
            except _TooDifferent:
                pass
            else:
                paths = tuple(path for path, _ in differences)
                # equal paths share one object, to save memory
                self._paths = self._paths if paths == self._paths else paths
                return PackedChunk(self._template, self._paths, tuple(value for _, value in differences))
        self._template = chunk
        return chunk


def _compare(new: Any, old: Any, path: _Path, differences: list[tuple[_Path, object]]) -> None:
    """Append path and value of each plain value in `new` that differs from `old` to `differences`.

    `path` is that of both values. Raises `_TooDifferent` for differences of another kind, or too many of them.
    """
    has_same_type = type(new) is type(old)
    if has_same_type and isinstance(new, BaseModel):
        _compare_models(new, old, path, differences)
    elif has_same_type and isinstance(new, list):
        if len(new) != len(old):
            raise _TooDifferent
        for index, (new_value, old_value) in enumerate(zip(new, old, strict=True)):
            _compare(new_value, old_value, (*path, index), differences)
    elif not has_same_type or new != old:
        # None against a text is a plain difference, too.
        are_plain = isinstance(new, _PLAIN_TYPES) and isinstance(old, _PLAIN_TYPES)
        if not are_plain or len(differences) == _MAX_DIFFERENCES:
            raise _TooDifferent
        differences.append((path, new))


def _compare_models(new: BaseModel, old: BaseModel, path: _Path, differences: list[tuple[_Path, object]]) -> None:
    """Compare the fields, extras and private attributes of two models, as `_compare` does with their values."""
    # `unpack` takes these two from the template, so they must be equal.
    if new.model_fields_set != old.model_fields_set or _private_attributes(new) != _private_attributes(old):
        raise _TooDifferent
    for new_fields, old_fields in ((vars(new), vars(old)), (new.model_extra or {}, old.model_extra or {})):
        if new_fields.keys() != old_fields.keys():
            raise _TooDifferent
        for name, value in new_fields.items():
            _compare(value, old_fields[name], (*path, name), differences)


def _private_attributes(model: BaseModel) -> object:
    return getattr(model, "__pydantic_private__", None)


def _set_in_copy(chunk: Any, template: Any, path: _Path, value: object) -> None:
    """Set the value at `path` in a shallow copy of `template`; objects on the path that both share are copied first."""
    parent = chunk
    template_parent = template
    for step in path[:-1]:
        child = _find_holder(parent, step)[step]
        template_child = _find_holder(template_parent, step)[step]
        if child is template_child:
            child = list(child) if isinstance(child, list) else child.model_copy()
            _find_holder(parent, step)[step] = child
        parent = child
        template_parent = template_child
    _find_holder(parent, path[-1])[path[-1]] = value


def _find_holder(parent: Any, step: str | int) -> Any:
    """What holds the value at a step: a list itself, or the dict in which a model stores the field.

    LiteLLM's choices store theirs as undeclared extras.
    """
    if isinstance(step, int):
        return parent
    values = vars(parent)
    return values if step in values else parent.model_extra or values
