"""Edits of YAML text: change a single value at its position, so that comments, quotes and layout are kept.

Round-trip writers lose some of these: ruamel.yaml 0.19 drops a comment that follows a `{flow: mapping}` in a list.
`apply_checked_edit` checks that the new text parses to the intended data, and `replace_file` replaces the file.
"""

from __future__ import annotations

import copy
import glob
import math
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from aligner_proxy.errors import ConfigError
from aligner_proxy.policy.yaml_file import KeyPath, parse_yaml

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_KEPT_BACKUPS = 10
"""Copies of a file before its latest changes that are kept."""
_TIME_GLOB = "[0-9]" * 8 + "T" + "[0-9]" * 6
Value = str | float | Mapping[str, int]


def put_value(text: str, block: KeyPath, key: str, value: Value) -> str:
    """Set `key: value` in the block at the key path `block`, and return the new text.

    If the file lacks the block, it is added at the end; then the path must have one key, such as ("defaults",).
    """
    value_text = _format_value(value)
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    # The file is empty, or has only comments.
    if root is None or not isinstance(root, yaml.MappingNode):
        return _insert_lines(text, len(text.rstrip()), 0, f"{block[0]}:", f"  {key}: {value_text}")
    node: yaml.Node = root
    for part in block:
        child = _find_child(node, part)
        if child is None:
            return _add_pair(text, root, str(part), f"{{{key}: {value_text}}}")
        node = child
    if not isinstance(node, yaml.MappingNode):  # a key without a value (`defaults:`)
        return _replace_node(text, node, f"{{{key}: {value_text}}}")
    old_node = _find_child(node, key)
    if old_node is None:
        return _add_pair(text, node, key, value_text)
    return _replace_node(text, old_node, value_text)


def append_item(text: str, block: KeyPath, key: str, value: str, comment: str = "") -> str:
    """Append an item to the list under `key` of the block at the key path `block`, and return the new text.

    A missing list is added. The comment is written after the item if the item gets its own line, and is dropped
    otherwise.
    """
    block_node = _find_node(text, block)
    item = quote_text(value)
    line_end = f"  # {comment}" if comment else ""
    if block_node is None or not isinstance(block_node, yaml.MappingNode):
        return _insert_lines(text, len(text.rstrip()), 0, f"{key}:", f"  - {item}{line_end}")
    list_node = _find_child(block_node, key)
    if list_node is None:
        if block_node.flow_style:
            return _add_pair(text, block_node, key, f"[{item}]")
        column = block_node.start_mark.column
        return _insert_lines(text, _node_end(block_node), column, f"{key}:", f"  - {item}{line_end}")
    if not isinstance(list_node, yaml.SequenceNode):  # a key without a value
        return _replace_node(text, list_node, f"[{item}]")
    if not list_node.flow_style:
        return _insert_lines(text, _node_end(list_node), list_node.start_mark.column, f"- {item}{line_end}")
    if not list_node.value:
        index = list_node.start_mark.index + 1  # behind the opening bracket
        return text[:index] + item + text[index:]
    index = _node_end(list_node.value[-1])
    return f"{text[:index]}, {item}{text[index:]}"


def remove_item(text: str, block: KeyPath, key: str, index: int) -> str:
    """Remove an item and its comment from the list under `key` of `block`; return the new text, perhaps with `[]`."""
    node = _find_node(text, (*block, key))
    assert isinstance(node, yaml.SequenceNode)
    item = node.value[index]
    if not node.flow_style:
        if len(node.value) == 1:
            after_colon = text.rfind(":", 0, node.start_mark.index) + 1
            return text[:after_colon] + " []\n" + text[_next_line_start(text, _node_end(node)) :]
        line_start = text.rfind("\n", 0, item.start_mark.index) + 1
        return text[:line_start] + text[_next_line_start(text, _node_end(item)) :]
    if len(node.value) == 1:
        return text[: node.start_mark.index] + "[]" + text[node.end_mark.index :]
    # The first item of a flow list is removed with the comma behind it, any other with the comma before it.
    if index == 0:
        return text[: item.start_mark.index] + text[node.value[1].start_mark.index :]
    return text[: _node_end(node.value[index - 1])] + text[_node_end(item) :]


def wrap_in_block(text: str, path: KeyPath, key: str) -> str:
    """Wrap the single value at `path` in a block and return the new text: `x` becomes `{key: x}`."""
    node = _find_node(text, path)
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


def apply_checked_edit(
    text: str, path: Path, edit_text: Callable[[str], str], change_data: Callable[[Any], None]
) -> str:
    """Edit the text of a YAML file and return the new text, if the edit changes the file's data as intended.

    `edit_text` returns the new text, and `change_data` makes the intended change in the parsed data in place. Raises
    `ConfigError` if the new text does not parse to the changed data.
    """
    old_data, _ = parse_yaml(text, path)
    intended_data = copy.deepcopy(old_data)
    change_data(intended_data)
    try:
        edited_text = edit_text(text)
        new_data, _ = parse_yaml(edited_text, path)
        is_intended = new_data == intended_data
    except (ConfigError, yaml.YAMLError):
        is_intended = False
    if not is_intended:
        raise ConfigError(f"{path.name}: other settings would change, too (probably through an alias); edit it by hand")
    return edited_text


def replace_file(path: Path, before: str, after: str, *, backup: bool = False) -> Path | None:
    """Replace the text `before` of a file by `after`, atomically, and keep the file's permissions.

    Raises `ConfigError` if the file no longer contains exactly `before`. With `backup`, the old file is copied next to
    it under a name with the time, and the path of the copy is returned. Only the latest copies are kept.
    """
    backup_path = None
    if backup:
        now = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        backup_path = path.with_name(f"{path.name}.{now}.bak")
    temporary_name = None
    try:
        handle, temporary_name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(after.encode())
            file.flush()
            os.fsync(file.fileno())
        shutil.copymode(path, temporary_name)
        # This check is made as late as possible, to notice a change by somebody else until just before ours.
        if path.read_bytes() != before.encode():
            raise ConfigError(f"{path} was changed by somebody else in the meantime; look at it and try again")
        if backup_path is not None:
            shutil.copy2(path, backup_path)
        os.replace(temporary_name, path)
        temporary_name = None  # nothing is left to remove
        backups = sorted(path.parent.glob(f"{glob.escape(path.name)}.{_TIME_GLOB}.bak"))  # from old to new
        for old_backup in backups[:-_KEPT_BACKUPS]:
            old_backup.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from None
    finally:
        if temporary_name is not None:
            Path(temporary_name).unlink()
    return backup_path


def _find_node(text: str, path: KeyPath) -> yaml.Node | None:
    """Return the node of the value at `path` in a YAML text; None if there is none."""
    node: yaml.Node | None = yaml.compose(text, Loader=yaml.SafeLoader)
    for part in path:
        node = node and _find_child(node, part)
    return node


def _find_child(node: yaml.Node, part: str | int) -> yaml.Node | None:
    """Return the node of the value under a key of a mapping, or at an index of a list; None if a key is missing."""
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int):
        item: yaml.Node = node.value[part]
        return item
    pairs = node.value if isinstance(node, yaml.MappingNode) else ()
    return next((value for key, value in pairs if key.value == part), None)


def _replace_node(text: str, node: yaml.Node, new_text: str) -> str:
    """Replace a node of a YAML text by `new_text` and return the whole new text."""
    start = node.start_mark.index
    end = node.end_mark.index
    # A key without a value (`key:`) has an empty node right after its colon.
    space = " " if start == end and text[start - 1 : start] == ":" else ""
    return text[:start] + space + new_text + text[end:]


def _add_pair(text: str, node: yaml.MappingNode, key: str, value_text: str) -> str:
    """Add `key: value_text` at the end of the mapping `node` of a YAML text, and return the whole new text."""
    pair_text = f"{key}: {value_text}"
    if not node.flow_style:
        return _insert_lines(text, _node_end(node), node.start_mark.column, pair_text)
    if not node.value:
        index = node.start_mark.index + 1  # behind the opening brace
        return text[:index] + pair_text + text[index:]
    _, last_value = node.value[-1]
    index = _node_end(last_value)
    return f"{text[:index]}, {pair_text}{text[index:]}"


def _insert_lines(text: str, index: int, column: int, *lines: str) -> str:
    """Insert lines, indented to `column`, where the next line after `index` begins; return the new text."""
    newline = "\r\n" if "\r\n" in text else "\n"
    start = _next_line_start(text, index)
    text_before = text[:start]
    if text_before and not text_before.endswith("\n"):
        text_before += newline
    return text_before + "".join(" " * column + line + newline for line in lines) + text[start:]


def _next_line_start(text: str, index: int) -> int:
    """Return where the next line begins: `index` itself right after a line break; the text's end if no line follows."""
    if text[index - 1 : index] == "\n":
        return index
    return text.find("\n", index) + 1 or len(text)


def _node_end(node: yaml.Node) -> int:
    """Return the index behind the last value in `node`; the parser's own end includes comments after a block."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last_child = node.value[-1]
        if isinstance(node, yaml.MappingNode):
            _, last_child = last_child
        return _node_end(last_child)
    return int(node.end_mark.index)


def _format_value(value: Value) -> str:
    """Format a value for YAML so that it is read back unchanged."""
    if isinstance(value, str):
        return f'"{value}"' if value == "off" else value  # without quotes, off would be read as false
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {number}" for name, number in value.items()) + "}"
    digits = repr(float(value))
    return digits if "e" not in digits else f"{value:.12f}"  # 1e-05 would be read as text
