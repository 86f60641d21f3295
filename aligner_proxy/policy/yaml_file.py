"""YAML with the line of every key and item, and edits of single values that keep every other byte.

The reader returns plain data together with the line of every key and list item, refuses duplicate keys, and formats
pydantic's errors as one line each: file:line, the key, the fix. It knows nothing about policies, and it never
quotes a value, because values can be secrets.

An edit changes the text only at the position of the value, so comments, quotes and layout are kept. (Round-trip writers
lose some: ruamel.yaml 0.19 drops a comment that follows a `{flow: mapping}` in a list.) `apply_checked_edit` checks
that the new text parses to the intended data, and `replace_file` replaces the file.
"""

from __future__ import annotations

import copy
import difflib
import glob
import math
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, get_args

import yaml
from pydantic import AfterValidator, BaseModel, ValidationError
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
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
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
_TYPES = {
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
_BLOCK_TYPES = ("model_type", "model_attributes_type")
_VARIABLE_RULE = "must be the name of an environment variable, without $ and not its value"
_NAME_RULE = "a name begins with a letter or digit, and has at most 64 of A-Z, a-z, 0-9 and . _ -"
Value = str | float | Mapping[str, int]


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
        """ "file:line" of `path`, or of the nearest enclosing block in the file."""
        while path and path not in self.lines:
            path = path[:-1]
        return f"{self.name}:{self.lines.get(path, 1)}"

    def origin(self, *path: str | int) -> str:
        """ "file:line" when the file sets `path`, else "built-in default"."""
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


def read_yaml(path: Path) -> tuple[Any, YamlSource]:
    """(plain data, source) of a YAML file; an empty file gives {} as data. Raises `ConfigError`."""
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
    """(plain data, source) of the text of the file at `path`, which need not exist yet; raises `ConfigError`."""
    lines: dict[KeyPath, int] = {}
    try:
        data = _YamlReader(text, path.name, lines).read()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        problem = str(error.problem or error.context)
        fix = next((f"; {fix}" for beginning, fix in _YAML_FIXES.items() if problem.startswith(beginning)), "")
        raise ConfigError(f"{path.name}:{line}: not valid YAML: {problem}{fix}") from None
    except ReaderError as error:
        before = text[: error.position]
        line = before.count("\n") + 1
        column = len(before) - before.rfind("\n")
        fault = f"the character U+{error.character:04X} in column {column} is not allowed"
        raise ConfigError(f"{path.name}:{line}: not valid YAML: {fault}; remove it") from None
    except RecursionError:
        raise ConfigError(f"{path.name}: not valid YAML: too many levels; remove brackets or indentation") from None
    return ({} if data is None else data), YamlSource(path.name, path.parent, lines, text)


class _YamlReader:
    """Turns YAML nodes into plain data. Keys stay text, because YAML would read `on`, `no` and `1.0` as other types."""

    def __init__(self, text: str, name: str, lines: dict[KeyPath, int]) -> None:
        self._loader = yaml.SafeLoader(text)
        self._name = name
        self._lines = lines
        """The line of each key path, filled while reading."""
        self._open: set[int] = set()
        """Ids of the nodes that enclose the present one; an alias to one of them would be endless."""
        self._nodes = 0
        """Number of nodes converted so far; a node counts again for each alias."""

    def read(self) -> Any:
        """Convert the whole document to plain data; None if it is empty."""
        node = self._loader.get_single_node()
        return None if node is None else self._convert(node, ())

    def _convert(self, node: yaml.Node, path: KeyPath) -> Any:
        """Convert a node to plain data, record its line, and return the data.

        Raises `ConfigError` for too many nodes, deep nesting and aliases that contain themselves.
        """
        # The line of its key, which `_convert_mapping` has recorded, comes first.
        self._lines.setdefault(path, node.start_mark.line + 1)
        self._nodes += 1
        if self._nodes > _MAX_NODES or len(path) > _MAX_DEPTH:
            raise self._make_error(node, "too many values or levels; use no aliases")
        if node.tag not in _TYPES and not (isinstance(node, yaml.ScalarNode) and node.tag in _SIGN_TAGS):
            tag = quote_name(node.tag.replace(_CORE_TAG, "!!", 1))
            raise self._make_error(node, f"the tag {tag} has no meaning here; remove it")
        if isinstance(node, yaml.ScalarNode):
            return self._read_scalar(node)
        # An alias is the same node object as its anchor.
        if id(node) in self._open:
            raise self._make_error(node, "an alias (*name) contains itself")
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self._convert_mapping(node, path)
            return [self._convert(item, (*path, i)) for i, item in enumerate(node.value)]
        finally:
            self._open.discard(id(node))

    def _make_error(self, node: yaml.Node, fault: str) -> ConfigError:
        """The error for a fault at a node."""
        return ConfigError(f"{self._name}:{node.start_mark.line + 1}: {fault}")

    def _read_scalar(self, node: yaml.ScalarNode) -> Any:
        """The value of a scalar; raises `ConfigError` for one that is not of the type that it looks like."""
        kind = _TYPES.get(node.tag, "str")
        if node.tag in _SIGN_TAGS or (kind == "number" and _ODD_NUMBER.fullmatch(node.value)):
            return node.value
        try:
            return self._loader.construct_object(node)
        except (ValueError, LookupError, AttributeError):
            raise self._make_error(node, f"looks like a {kind}, but is none; put it in quotes if it is text") from None

    def _convert_mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        """Convert a mapping and record the line of each key; raises `ConfigError` for duplicate keys."""
        # First, because the lines of the mapping's own keys count.
        merged = self._convert_merges(node, path)
        mapping: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise self._make_error(key, "a key must be plain text")
            if key.tag == _MERGE_TAG:
                continue
            if key.value in mapping:
                first = self._lines[(*path, key.value)]
                raise self._make_error(
                    key, f"key {quote_name(key.value)} is given twice (first on line {first}); keep one"
                )
            self._lines[(*path, key.value)] = key.start_mark.line + 1
            mapping[key.value] = self._convert(value, (*path, key.value))
        return merged | mapping

    def _convert_merges(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        """The pairs that a mapping takes from others by `<<`, as LiteLLM reads them, too; the first mapping counts."""
        merged: dict[str, Any] = {}
        for key, value in node.value:
            if key.tag != _MERGE_TAG:
                continue
            blocks = value.value if isinstance(value, yaml.SequenceNode) else [value]
            for block in reversed(blocks):
                if not isinstance(block, yaml.MappingNode):
                    raise self._make_error(
                        key, "<< must be followed by the alias of a block (*name), or a list of them"
                    )
                merged |= self._convert(block, path)
        return merged


def quote_name(name: str) -> str:
    """Make a name from outside safe to print: quoted, escaped, at most 80 characters."""
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
    """A `ConfigError` with one line, position and fix, for each of pydantic's errors; at most 10 are shown."""
    # The input only tells whether there is one: it may be a secret.
    texts = [_explain_error(detail, source, model) for detail in error.errors(include_url=False)]
    more = [f"... and {len(texts) - _MAX_SHOWN_ERRORS} more"] if len(texts) > _MAX_SHOWN_ERRORS else []
    return ConfigError("\n".join(texts[:_MAX_SHOWN_ERRORS] + more))


def _explain_error(detail: ErrorDetails, source: YamlSource, model: type[BaseModel]) -> str:
    """One error of pydantic as "file:line: key: message"; an unknown key also gets a suggestion."""
    loc = detail["loc"]
    is_unknown = detail["type"] == "extra_forbidden"
    # The last part of an unknown key's location is the key itself, so keep it even if it is in brackets.
    last = len(loc) - 1 if is_unknown else None
    path = tuple(part for n, part in enumerate(loc) if n == last or not _FORM_TAG.fullmatch(str(part)))
    place = source.place_of(*path)
    if is_unknown:
        key = str(path[-1])
        hint = _find_right_place(model, path) or suggest_name(key, list(_model_at(model, path[:-1]).model_fields))
        return f"{place}: unknown key {quote_name(key)} in {dotted_path(path[:-1])}; {hint}"
    return f"{place}: {dotted_path(path)}: {_describe_fault(detail, model, path)}"


def _describe_fault(detail: ErrorDetails, model: type[BaseModel], path: KeyPath) -> str:
    """What is wrong with the value at `path`, and what it must be."""
    kind = detail["type"]
    if detail["input"] is None:
        return "has no value; give it one, or remove the key"
    inner = _model_at(model, path)
    if kind in _BLOCK_TYPES:
        return f"must be a block of keys, such as {_example_block(inner)}"
    is_of_blocks = inner is not _model_at(model, path[:-1]) and LIST_FORM not in detail["loc"]
    if kind == "tuple_type" and is_of_blocks:
        return f"must be a list of blocks, such as [{_example_block(inner)}]"
    if kind == "string_pattern_mismatch" and str(path[-1]).endswith("_env"):
        return _VARIABLE_RULE
    if detail.get("ctx", {}).get("pattern") == NAME:
        return _NAME_RULE
    return _PLAIN_MESSAGES.get(kind, detail["msg"].removeprefix("Value error, "))


def _example_block(model: type[BaseModel]) -> str:
    """A block with the keys that this model needs, or with its first key."""
    fields = model.model_fields
    keys = [name for name, about in fields.items() if about.is_required()] or list(fields)[:1]
    return "{" + ", ".join(f"{key}: ..." for key in keys) + "}"


def _model_at(model: type[BaseModel], path: KeyPath) -> type[BaseModel]:
    """The model of the block at `path`, or of the nearest enclosing one; list positions do not change the model."""
    for part in path:
        if isinstance(part, str) and part in model.model_fields:
            model = next(_models_in(model.model_fields[part].annotation), model)
    return model


def _find_right_place(model: type[BaseModel], path: KeyPath) -> str | None:
    """A hint for a key that stands in the wrong block: the blocks that have it; None if none or too many have it."""
    *names, key = (part for part in path if isinstance(part, str))
    own_keys = _model_at(model, path[:-1]).model_fields.keys()
    ranks: dict[tuple[int, int], list[str]] = {}
    for block, inner in _list_blocks(model):
        if key not in inner.model_fields:
            continue
        is_alike = block[-1:] == tuple(names[-1:]) or len(own_keys & inner.model_fields.keys()) > len(own_keys) / 2
        is_inside = block[: len(names)] == tuple(names)
        rank = (0 if is_alike else 1 if is_inside else 2, len(block))
        ranks.setdefault(rank, []).append(dotted_path(block) if block else "the file itself")
    blocks = ranks[min(ranks)] if ranks else []
    return f"it belongs in {', '.join(blocks)}" if 0 < len(blocks) <= _MAX_NAMED_BLOCKS else None


def _list_blocks(
    model: type[BaseModel], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], type[BaseModel]]]:
    """Yield every block of a model with its position, the outer ones first."""
    yield path, model
    for name, about in model.model_fields.items():
        for inner in _models_in(about.annotation):
            yield from _list_blocks(inner, (*path, name))


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the pydantic models in a type, for example the one in `tuple[Route, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def put_value(text: str, block: KeyPath, key: str, value: Value) -> str:
    """Set `key: value` in the block at `block` and return the new text; a missing block is added."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    # An empty file, or one with comments only.
    if root is None or not isinstance(root, yaml.MappingNode):
        return _insert_lines(text, len(text.rstrip()), 0, f"{block[0]}:", f"  {key}: {_format_value(value)}")
    target: yaml.Node = root
    for part in block:
        child = _find_child(target, part)
        if child is None:
            return _add_pair(text, root, str(part), f"{{{key}: {_format_value(value)}}}")
        target = child
    if not isinstance(target, yaml.MappingNode):  # a key without a value (`defaults:`)
        return _replace_node(text, target, f"{{{key}: {_format_value(value)}}}")
    old_node = _find_child(target, key)
    if old_node is None:
        return _add_pair(text, target, key, _format_value(value))
    return _replace_node(text, old_node, _format_value(value))


def append_item(text: str, block: KeyPath, key: str, value: str, comment: str = "") -> str:
    """Append an item to the list under `key` of the block at `block` and return the new text; a missing list is added.

    The comment is written after the item if the item has its own line, and is dropped otherwise.
    """
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    target = root
    for part in block:
        target = target and _find_child(target, part)
    item = quote_text(value)
    comment_text = f"  # {comment}" if comment else ""
    if target is None or not isinstance(target, yaml.MappingNode):
        return _insert_lines(text, len(text.rstrip()), 0, f"{key}:", f"  - {item}{comment_text}")
    items = _find_child(target, key)
    if items is None:
        if target.flow_style:
            return _add_pair(text, target, key, f"[{item}]")
        column = target.start_mark.column
        return _insert_lines(text, _node_end(target), column, f"{key}:", f"  - {item}{comment_text}")
    if not isinstance(items, yaml.SequenceNode):  # a key without a value
        return _replace_node(text, items, f"[{item}]")
    if items.flow_style:
        index = _node_end(items.value[-1]) if items.value else items.start_mark.index + 1
        return text[:index] + (", " if items.value else "") + item + text[index:]
    return _insert_lines(text, _node_end(items), items.start_mark.column, f"- {item}{comment_text}")


def remove_item(text: str, block: KeyPath, key: str, index: int) -> str:
    """Remove an item and its comment from the list under `key` and return the new text; a last item leaves `[]`."""
    node: yaml.Node | None = yaml.compose(text, Loader=yaml.SafeLoader)
    for part in (*block, key):
        node = node and _find_child(node, part)
    assert isinstance(node, yaml.SequenceNode)
    if len(node.value) == 1:
        end = node.end_mark.index if node.flow_style else _next_line_start(text, _node_end(node))
        start = node.start_mark.index if node.flow_style else text.rfind(":", 0, node.start_mark.index) + 1
        return text[:start] + ("[]" if node.flow_style else " []\n") + text[end:]
    item = node.value[index]
    if not node.flow_style:
        return text[: text.rfind("\n", 0, item.start_mark.index) + 1] + text[_next_line_start(text, _node_end(item)) :]
    # The first item of a flow list goes with the comma behind it, any other with the comma before it.
    if index == 0:
        return text[: item.start_mark.index] + text[node.value[1].start_mark.index :]
    return text[: _node_end(node.value[index - 1])] + text[_node_end(item) :]


def wrap_in_block(text: str, path: KeyPath, key: str) -> str:
    """Wrap the value at `path` in a block and return the new text: `x` becomes `{key: x}`."""
    node: yaml.Node | None = yaml.compose(text, Loader=yaml.SafeLoader)
    for part in path:
        node = node and _find_child(node, part)
    # A block needs no wrapping.
    if not isinstance(node, yaml.ScalarNode):
        return text
    start = node.start_mark.index
    end = node.end_mark.index
    return f"{text[:start]}{{{key}: {quote_text(str(node.value))}}}{text[end:]}"


def quote_text(value: str) -> str:
    """Format a text as YAML on one line: a plain name unquoted, any other text in double quotes."""
    if _PLAIN.fullmatch(value) and yaml.safe_load(value) == value:
        return value
    dumped: str = yaml.safe_dump(value, default_style='"', allow_unicode=True, width=math.inf)
    return dumped.strip()


def apply_checked_edit(text: str, path: Path, edit: Callable[[str], str], change: Callable[[Any], None]) -> str:
    """The text of a YAML file after `edit`, if that changes its data as intended.

    `edit` returns the new text, and `change` makes the intended change in the parsed data. Raises `ConfigError` if the
    new text has other data.
    """
    data = copy.deepcopy(parse_yaml(text, path)[0])
    change(data)
    try:
        edited_text = edit(text)
        is_intended = parse_yaml(edited_text, path)[0] == data
    except (ConfigError, yaml.YAMLError):
        is_intended = False
    if not is_intended:
        raise ConfigError(f"{path.name}: other settings would change, too (probably through an alias); edit it by hand")
    return edited_text


_KEPT_BACKUPS = 10
"""Copies of a file before its latest changes that are kept."""
_TIME_GLOB = "[0-9]" * 8 + "T" + "[0-9]" * 6


def replace_file(path: Path, before: str, after: str, *, backup: bool = False) -> Path | None:
    """Replace a file atomically and keep its permissions; raises `ConfigError` if it no longer contains `before`.

    With `backup`, the old file is copied next to it under a name with the time, and the path of the copy is returned.
    Only the latest copies are kept.
    """
    backup_path = path.with_name(f"{path.name}.{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}.bak") if backup else None
    name = None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(after.encode())
            file.flush()
            os.fsync(file.fileno())
        shutil.copymode(path, name)
        # As late as possible, to catch a change by somebody else until just before ours.
        if path.read_bytes() != before.encode():
            raise ConfigError(f"{path} was changed by somebody else in the meantime; look at it and try again")
        if backup_path is not None:
            shutil.copy2(path, backup_path)
        os.replace(name, path)
        name = None  # nothing is left to remove
        # the names sort by time
        for old in sorted(path.parent.glob(f"{glob.escape(path.name)}.{_TIME_GLOB}.bak"))[:-_KEPT_BACKUPS]:
            old.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from None
    finally:
        if name is not None:
            Path(name).unlink()
    return backup_path


def _find_child(node: yaml.Node, part: str | int) -> yaml.Node | None:
    """The node of the value under a key, or of an item of a list; None if there is none."""
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int):
        item: yaml.Node = node.value[part]
        return item
    pairs = node.value if isinstance(node, yaml.MappingNode) else ()
    return next((value for key, value in pairs if key.value == part), None)


def _replace_node(text: str, node: yaml.Node, new_text: str) -> str:
    """Replace a node of the text by `new_text`; after a key without a value (`key:`) a space is added first."""
    start = node.start_mark.index
    end = node.end_mark.index
    gap = " " if start == end and text[start - 1 : start] == ":" else ""
    return text[:start] + gap + new_text + text[end:]


def _add_pair(text: str, node: yaml.MappingNode, key: str, value_text: str) -> str:
    """Add a pair at the end of a block or flow mapping and return the new text."""
    if node.flow_style:
        index = _node_end(node.value[-1][1]) if node.value else node.start_mark.index + 1
        return text[:index] + (", " if node.value else "") + f"{key}: {value_text}" + text[index:]
    return _insert_lines(text, _node_end(node), node.start_mark.column, f"{key}: {value_text}")


def _insert_lines(text: str, index: int, column: int, *lines: str) -> str:
    """Insert lines below the line that contains `index`, so that a comment at the end of that line stays with it."""
    newline = "\r\n" if "\r\n" in text else "\n"
    start = _next_line_start(text, index)
    gap = newline if text[:start] and not text[:start].endswith("\n") else ""
    return text[:start] + gap + "".join(" " * column + line + newline for line in lines) + text[start:]


def _next_line_start(text: str, index: int) -> int:
    """The index at which the next line begins; `index` itself if it is already at the beginning of a line.

    (Where the parser says that a multi-line text ends, a line begins.)
    """
    return index if text[index - 1 : index] == "\n" else text.find("\n", index) + 1 or len(text)


def _node_end(node: yaml.Node) -> int:
    """The index at which the last value in `node` ends; the parser's own end includes comments after a block."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _node_end(last[1] if isinstance(node, yaml.MappingNode) else last)
    return int(node.end_mark.index)


def _format_value(value: Value) -> str:
    """Format a value so that it reads back unchanged: unquoted, `off` would become a truth value and 1e-05 a text."""
    if isinstance(value, str):
        return f'"{value}"' if value == "off" else value
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {number}" for name, number in value.items()) + "}"
    digits = repr(float(value))
    return digits if "e" not in digits else f"{value:.12f}"
