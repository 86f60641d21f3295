"""Reads YAML as plain data, together with the line of every key and list item, and explains pydantic's errors.

Duplicate keys are refused. Each error is explained on one line: file:line, the key, the fix. This module knows nothing
about policies, and it never quotes a value, because values can be secrets.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, get_args

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails
from yaml.reader import ReaderError

from aligner_proxy.errors import ConfigError
from aligner_proxy.policy.shares import NAME

KeyPath = tuple[str | int, ...]
"""Position of a value in the data, as keys and list indexes: ("routes", 0, "match")."""
BUILT_IN = "built-in default"
# Tags of the two forms of a setting, which pydantic puts into error locations; tags in brackets are not in the file.
LIST_FORM = "[list]"
BLOCK_FORM = "[block]"
_FORM_TAG = re.compile(r"\[[^\]]*\]")
"""A part of an error's location that stands for the form of a value, and is not in the file."""
_MAX_NAME_CHARS = 80
"""Characters of a name from outside that a message repeats."""
_MAX_NAMED_BLOCKS = 3
"""Most blocks that a message names for a misplaced key."""
_MAX_SHOWN_ERRORS = 10
"""Errors that one message lists."""
# Limits against nested aliases, which expand a few hundred bytes without end; real files are far below either limit.
_MAX_NODES = 200_000
_MAX_DEPTH = 50
_MAX_BYTES = 16 * 2**20
_MAX_NAME_BYTES = 255
"""Longest name of a file or folder on common file systems."""
_CORE_TAG = "tag:yaml.org,2002:"
"""Beginning of the tags of YAML's own types; `!!int` is short for it and "int"."""
_MERGE_TAG = f"{_CORE_TAG}merge"
_TYPE_WORDS = {
    **{f"{_CORE_TAG}{name}": name for name in ("str", "bool", "null", "map", "seq")},
    **{f"{_CORE_TAG}{name}": "number" for name in ("int", "float")},
    f"{_CORE_TAG}timestamp": "date",
}
"""Words for the types that values may have, by their tags."""
_SIGN_TAGS = (_MERGE_TAG, f"{_CORE_TAG}value")
"""Tags of the texts `<<` and `=`, which have no meaning as values."""
# YAML 1.1 would read 010 as 8 and 1:30 as 90, which nobody means.
_ODD_NUMBER = re.compile(r"[-+]?(0[0-9_]+|.*:.*)")
# What to do, by the beginnings of the parser's messages for the most common mistakes.
_YAML_FIXES = {
    "mapping values are not allowed": "put a text that contains a colon in quotes",
    "found character '\\t'": "indent with spaces, not with tabs",
    "could not find expected ':'": "write `key: value`, and put a text of several lines in quotes",
    "expected <block end>": "indent what belongs together alike",
    "but found another document": "keep one document, without the line `---`",
    "second occurrence": "give each anchor (&name) once",
    "found undefined alias": "define it before as &name, or put a text that begins with * in quotes",
}
# Plainer words for pydantic's messages, by the type of the error.
_PLAIN_MESSAGES = {
    "string_type": "must be text (put it in quotes)",
    "tuple_type": "must be a list, for example [a, b]",
    "dict_type": "must be a block of keys, such as {NAME: ...}",
    "float_type": "must be a number, without quotes or unit (and 1000, not 1e3)",
    "int_type": "must be a whole number, without quotes or unit (and 1000, not 1e3)",
    "bool_type": "must be true or false, without quotes",
    "missing": "is missing",
}


@dataclass(frozen=True, slots=True)
class YamlSource:
    """The source of parsed data: the file's name, its folder, the line of every key path, and the text."""

    name: str = "built-in"
    folder: Path = field(default_factory=Path)
    lines: Mapping[KeyPath, int] = field(default_factory=dict)
    text: str = field(default="", repr=False, compare=False)

    @property
    def is_empty(self) -> bool:
        """Whether the file has no content, not even an empty block (`{}`)."""
        return not self.lines

    def place_of(self, *path: str | int) -> str:
        """Return "file:line" of the value at `path`, or of the nearest block around it that the file has."""
        while path and path not in self.lines:
            path = path[:-1]
        return f"{self.name}:{self.lines.get(path, 1)}"

    def origin(self, *path: str | int) -> str:
        """Return "file:line" if the file sets `path`, else "built-in default"."""
        return self.place_of(*path) if path in self.lines else BUILT_IN

    def resolve(self, path: str) -> Path:
        """Resolve a path written in this file, relative to the file's folder."""
        return self.folder / Path(path).expanduser()


def check_path(path: str) -> str:
    """Return a path as written in a file; raises `ValueError` if no file can have it on this machine."""
    longest = max(len(os.fsencode(part)) for part in path.split("/"))
    if not path.strip() or "\0" in path or longest > _MAX_NAME_BYTES:
        raise ValueError(f"must be a path: not empty, without U+0000, each name at most {_MAX_NAME_BYTES} bytes")
    try:
        Path(path).expanduser()
    except RuntimeError:
        user = quote_name(path.partition("/")[0])
        raise ValueError(f"there is no home folder {user} on this machine; write the whole path") from None
    return path


FilePath = Annotated[str, AfterValidator(check_path)]
"""The path of a file or folder in a block of settings."""


class Block(BaseModel):
    """Base of the blocks in our files: unknown keys are refused, and docstrings of keys are their descriptions."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def read_yaml(path: Path) -> tuple[Any, YamlSource]:
    """Return plain data and source of a YAML file; the data of an empty file are {}. Raises `ConfigError`."""
    return parse_yaml(read_text(path), path)


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, with its line endings unchanged; raises `ConfigError`."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    if len(data) > _MAX_BYTES:
        raise ConfigError(f"cannot read {path}: it is larger than {_MAX_BYTES >> 20} MiB")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path.name}:{line}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None


def parse_yaml(text: str, path: Path) -> tuple[Any, YamlSource]:
    """Return plain data and source of a text for the file at `path`, which need not exist yet. Raises `ConfigError`."""
    lines: dict[KeyPath, int] = {}
    try:
        data = _YamlReader(text, path.name, lines).read()  # this also fills `lines`
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        problem = str(error.problem or error.context)
        fixes = [f"; {fix}" for beginning, fix in _YAML_FIXES.items() if problem.startswith(beginning)]
        raise ConfigError(f"{path.name}:{line}: not valid YAML: {problem}{''.join(fixes[:1])}") from None
    except ReaderError as error:
        text_before = text[: error.position]
        line = text_before.count("\n") + 1
        column = len(text_before) - text_before.rfind("\n")
        fault = f"the character U+{error.character:04X} in column {column} is not allowed"
        raise ConfigError(f"{path.name}:{line}: not valid YAML: {fault}; remove it") from None
    except RecursionError:
        raise ConfigError(f"{path.name}: not valid YAML: too many levels; remove brackets or indentation") from None
    return ({} if data is None else data), YamlSource(path.name, path.parent, lines, text)


class _YamlReader:
    """Converter of YAML nodes to plain data, which notes the line of each value.

    Keys stay text, because YAML would read `on`, `no` and `1.0` as other types.
    """

    def __init__(self, text: str, name: str, lines: dict[KeyPath, int]) -> None:
        self._loader = yaml.SafeLoader(text)
        self._file_name = name
        self._lines = lines
        """The line of each key path, filled while reading."""
        self._enclosing_ids: set[int] = set()
        """Ids of the nodes that enclose the present one; an alias to one of them would be endless."""
        self._node_count = 0
        """Number of nodes converted so far; a node counts again for each alias."""

    def read(self) -> Any:
        """Convert the whole document to plain data; None if it is empty."""
        node = self._loader.get_single_node()
        return None if node is None else self._convert(node, ())

    def _convert(self, node: yaml.Node, path: KeyPath) -> Any:
        """Convert a node to plain data; raises `ConfigError` for too many nodes, deep nesting and endless aliases."""
        # For a value in a mapping, `_convert_mapping` has recorded the line of its key, which counts.
        self._lines.setdefault(path, node.start_mark.line + 1)
        self._node_count += 1
        if self._node_count > _MAX_NODES or len(path) > _MAX_DEPTH:
            raise self._make_error(node, "too many values or levels; use no aliases")
        is_sign = isinstance(node, yaml.ScalarNode) and node.tag in _SIGN_TAGS
        if node.tag not in _TYPE_WORDS and not is_sign:
            tag = quote_name(node.tag.replace(_CORE_TAG, "!!", 1))
            raise self._make_error(node, f"the tag {tag} has no meaning here; remove it")
        if isinstance(node, yaml.ScalarNode):
            return self._read_scalar(node)
        # An alias is the same node object as its anchor.
        if id(node) in self._enclosing_ids:
            raise self._make_error(node, "an alias (*name) contains itself")
        self._enclosing_ids.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self._convert_mapping(node, path)
            return [self._convert(item, (*path, index)) for index, item in enumerate(node.value)]
        finally:
            self._enclosing_ids.discard(id(node))

    def _make_error(self, node: yaml.Node, fault: str) -> ConfigError:
        """The error for a fault at a node."""
        return ConfigError(f"{self._file_name}:{node.start_mark.line + 1}: {fault}")

    def _read_scalar(self, node: yaml.ScalarNode) -> Any:
        """Return the value of a scalar; raises `ConfigError` for a wrong number or date, such as 2026-99-99."""
        type_word = _TYPE_WORDS.get(node.tag, "str")
        if node.tag in _SIGN_TAGS or (type_word == "number" and _ODD_NUMBER.fullmatch(node.value)):
            return node.value  # as text
        try:
            return self._loader.construct_object(node)
        except (ValueError, LookupError, AttributeError):
            fault = f"looks like a {type_word}, but is none; put it in quotes if it is text"
            raise self._make_error(node, fault) from None

    def _convert_mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        """Convert a mapping and record the line of each key; raises `ConfigError` for duplicate keys."""
        # The merged pairs come first, so that the lines of the mapping's own keys replace theirs.
        merged = self._convert_merges(node, path)
        mapping: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise self._make_error(key, "a key must be plain text")
            if key.tag == _MERGE_TAG:
                continue
            if key.value in mapping:
                first_line = self._lines[(*path, key.value)]
                fault = f"key {quote_name(key.value)} is given twice (first on line {first_line}); keep one"
                raise self._make_error(key, fault)
            self._lines[(*path, key.value)] = key.start_mark.line + 1
            mapping[key.value] = self._convert(value, (*path, key.value))
        return merged | mapping

    def _convert_merges(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        """Return the pairs that a mapping takes from others by `<<`; of equal keys the first counts, as for LiteLLM."""
        merged: dict[str, Any] = {}
        for key, value in node.value:
            if key.tag != _MERGE_TAG:
                continue
            blocks = value.value if isinstance(value, yaml.SequenceNode) else [value]
            for block in reversed(blocks):
                if not isinstance(block, yaml.MappingNode):
                    fault = "<< must be followed by the alias of a block (*name), or a list of them"
                    raise self._make_error(key, fault)
                merged |= self._convert(block, path)
        return merged


def quote_name(name: str) -> str:
    """Make a name from outside safe to print: quoted, escaped, at most `_MAX_NAME_CHARS` characters of it."""
    return repr(name if len(name) <= _MAX_NAME_CHARS else name[: _MAX_NAME_CHARS - 3] + "...")


def suggest_name(name: str, names: Collection[str]) -> str:
    """A hint for an unknown name: the most similar known name, else all known names."""
    close = difflib.get_close_matches(name[:_MAX_NAME_CHARS], names, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(names))}"


def dotted_path(path: KeyPath) -> str:
    """A key path as text, for example routes[0].match.model."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.lstrip(".") or "the file"


def explain_errors(error: ValidationError, source: YamlSource, model: type[BaseModel]) -> ConfigError:
    """Return a `ConfigError` that explains pydantic's errors, one in each line, with the place and the fix.

    The file was validated against `model`. At most `_MAX_SHOWN_ERRORS` errors are explained. No value is shown,
    because it may be a secret.
    """
    messages = [_explain_error(detail, source, model) for detail in error.errors(include_url=False)]
    shown_messages = messages[:_MAX_SHOWN_ERRORS]
    if len(messages) > _MAX_SHOWN_ERRORS:
        shown_messages.append(f"... and {len(messages) - _MAX_SHOWN_ERRORS} more")
    return ConfigError("\n".join(shown_messages))


def _explain_error(detail: ErrorDetails, source: YamlSource, model: type[BaseModel]) -> str:
    """Return one error of pydantic as "file:line: key: message"; for an unknown key, the message has a suggestion."""
    location = detail["loc"]
    is_unknown_key = detail["type"] == "extra_forbidden"
    # The location has pydantic's tags for forms of values ("[list]"), which are not in the file. The last part of an
    # unknown key's location is the key itself, so it is kept even if it is in brackets.
    path = tuple(part for part in location if not _FORM_TAG.fullmatch(str(part)))
    if is_unknown_key and _FORM_TAG.fullmatch(str(location[-1])):
        path = (*path, location[-1])
    place = source.place_of(*path)
    if is_unknown_key:
        key = str(path[-1])
        block_path = path[:-1]
        hint = _find_right_place(model, path) or suggest_name(key, list(_model_at(model, block_path).model_fields))
        return f"{place}: unknown key {quote_name(key)} in {dotted_path(block_path)}; {hint}"
    return f"{place}: {dotted_path(path)}: {_describe_fault(detail, model, path)}"


def _describe_fault(detail: ErrorDetails, model: type[BaseModel], path: KeyPath) -> str:
    """Return what is wrong with the value at `path`, and what it must be, in plainer words than pydantic's."""
    error_type = detail["type"]
    if detail["input"] is None:
        return "has no value; give it one, or remove the key"
    value_model = _model_at(model, path)
    if error_type in ("model_type", "model_attributes_type"):
        return f"must be a block of keys, such as {_example_block(value_model)}"
    # If the value has no model of its own, `_model_at` returns that of the block around it.
    has_own_model = value_model is not _model_at(model, path[:-1])
    if error_type == "tuple_type" and has_own_model and LIST_FORM not in detail["loc"]:
        return f"must be a list of blocks, such as [{_example_block(value_model)}]"
    if error_type == "string_pattern_mismatch" and str(path[-1]).endswith("_env"):
        return "must be the name of an environment variable, without $ and not its value"
    if detail.get("ctx", {}).get("pattern") == NAME:
        return "a name begins with a letter or digit, and has at most 64 of A-Z, a-z, 0-9 and . _ -"
    return _PLAIN_MESSAGES.get(error_type, detail["msg"].removeprefix("Value error, "))


def _example_block(model: type[BaseModel]) -> str:
    """Return an example block with the keys that this model requires, else with its first key: "{match: ...}"."""
    fields = model.model_fields
    keys = [name for name, about in fields.items() if about.is_required()] or list(fields)[:1]
    return "{" + ", ".join(f"{key}: ..." for key in keys) + "}"


def _model_at(model: type[BaseModel], path: KeyPath) -> type[BaseModel]:
    """Return the model of the block at `path` below `model`, or of the nearest block around it that has a model."""
    for part in path:
        # A list index leads to a value of the same model as the list.
        if isinstance(part, str) and part in model.model_fields:
            model = next(_models_in(model.model_fields[part].annotation), model)
    return model


def _find_right_place(model: type[BaseModel], path: KeyPath) -> str | None:
    """Return a hint for a key that stands in the wrong block at `path`: the most likely blocks that have this key.

    None if no block has the key, or too many do. Blocks with the same name or mostly the same keys are most likely,
    then blocks inside the wrong one, then outer ones.
    """
    *written_names, key = (part for part in path if isinstance(part, str))
    wrong_path = tuple(written_names)
    wrong_keys = _model_at(model, path[:-1]).model_fields.keys()
    names_by_rank: dict[tuple[int, int], list[str]] = {}
    for block_path, block_model in _list_blocks(model):
        block_keys = block_model.model_fields.keys()
        if key not in block_keys:
            continue
        if block_path[-1:] == wrong_path[-1:] or len(wrong_keys & block_keys) > len(wrong_keys) / 2:
            likeness = 0
        else:
            likeness = 1 if block_path[: len(wrong_path)] == wrong_path else 2
        name = dotted_path(block_path) if block_path else "the file itself"
        names_by_rank.setdefault((likeness, len(block_path)), []).append(name)
    best_names = names_by_rank[min(names_by_rank)] if names_by_rank else []
    return f"it belongs in {', '.join(best_names)}" if 0 < len(best_names) <= _MAX_NAMED_BLOCKS else None


def _list_blocks(
    model: type[BaseModel], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], type[BaseModel]]]:
    """Yield key path (without list indexes) and model of every block below `model`, outer blocks first."""
    yield path, model
    for name, about in model.model_fields.items():
        for inner_model in _models_in(about.annotation):
            yield from _list_blocks(inner_model, (*path, name))


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the pydantic models in a type, for example the one in `tuple[Route, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)
