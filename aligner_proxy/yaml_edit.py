"""How is one value of a YAML file changed without touching another byte of it?

The parser says where each value stands, and the text is changed there: comments, quotes and layout are not read and
written again, so they cannot get lost. (Round-trip writers lose some: ruamel.yaml 0.19 drops a comment that follows a
`{flow: mapping}` in a list.) Whether the new text says what was meant is for the caller to check.
"""

from __future__ import annotations

import yaml

from aligner_proxy.provenance import KeyPath

Value = str | float


def put(text: str, block: KeyPath, key: str, value: Value) -> str:
    """`text` with `key: value` in the block at `block`; a block that is missing at the top is added at the end."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if root is None or not isinstance(root, yaml.MappingNode):
        return _lines_after(text, len(text.rstrip()), 0, f"{block[0]}:", f"  {key}: {_written(value)}")
    target: yaml.Node = root
    for part in block:
        inner = _child(target, part)
        if inner is None:
            return _added(text, root, str(part), f"{{{key}: {_written(value)}}}")
        target = inner
    if not isinstance(target, yaml.MappingNode):  # `defaults:` with nothing behind it
        return _replaced(text, target, f"{{{key}: {_written(value)}}}")
    there = _child(target, key)
    return _added(text, target, key, _written(value)) if there is None else _replaced(text, there, _written(value))


def _child(node: yaml.Node, part: str | int) -> yaml.Node | None:
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int):
        item: yaml.Node = node.value[part]
        return item
    pairs = node.value if isinstance(node, yaml.MappingNode) else ()
    return next((value for key, value in pairs if key.value == part), None)


def _replaced(text: str, node: yaml.Node, written: str) -> str:
    start, end = node.start_mark.index, node.end_mark.index
    gap = " " if start == end and text[start - 1 : start] == ":" else ""
    return text[:start] + gap + written + text[end:]


def _added(text: str, node: yaml.MappingNode, key: str, written: str) -> str:
    """One more pair at the end of a block or flow mapping."""
    if node.flow_style:
        at = _end(node.value[-1][1]) if node.value else node.start_mark.index + 1
        return text[:at] + (", " if node.value else "") + f"{key}: {written}" + text[at:]
    return _lines_after(text, _end(node), node.start_mark.column, f"{key}: {written}")


def _lines_after(text: str, at: int, column: int, *lines: str) -> str:
    """New lines below the one in which `at` stands, so that a comment at its end stays with it."""
    newline = "\r\n" if "\r\n" in text else "\n"
    below = text.find("\n", at) + 1 or len(text)
    gap = newline if text[:below] and not text[:below].endswith("\n") else ""
    return text[:below] + gap + "".join(" " * column + line + newline for line in lines) + text[below:]


def _end(node: yaml.Node) -> int:
    """Where the last value in `node` ends; the parser itself counts the comments that follow a block as part of it."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(last[1] if isinstance(node, yaml.MappingNode) else last)
    return int(node.end_mark.index)


def _written(value: Value) -> str:
    """As our reader reads it back: without quotes, `off` would be a truth value and 1e-05 a text."""
    if isinstance(value, str):
        return f'"{value}"' if value == "off" else value
    plain = repr(float(value))
    return plain if "e" not in plain else f"{value:.12f}"
