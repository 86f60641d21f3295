"""Checks of a policies file about plugins: deprecated names of their keys, and settings of plugins not installed.

The owner of a setting is the distribution that has its plugin.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from aligner_proxy.policy.plugin_keys import Declarations, missing_plugin_text, rename_deprecated
from aligner_proxy.policy.schema import PolicyFile, corrector_names, plugin_kind, route_selector
from aligner_proxy.policy.yaml_file import KeyPath, YamlSource, quote_name


def replace_deprecated_names(
    data: dict[str, Any], source: YamlSource, declarations: Declarations
) -> tuple[dict[str, Any], YamlSource, list[str]]:
    """Rename deprecated keys; return the new data, the source with their lines, and a warning for each."""
    data = dict(data)
    lines = dict(source.lines)
    warnings = list[str]()

    def rename_block(block: object, path: KeyPath) -> object:
        """Return the block at `path` with current names; adds warnings, and the lines of renamed keys."""
        if not isinstance(block, Mapping):
            return block
        renamed, changes = rename_deprecated(block, declarations.current_names)
        for change in changes:
            warnings.append(f"{source.place_of(*path, change.key)}: {change}")
            lines.update(_move_lines(source.lines, (*path, change.key), (*path, change.new_key)))
        return renamed

    if "defaults" in data:
        data["defaults"] = rename_block(data["defaults"], ("defaults",))
    for name in ("routes", "tenants"):
        if isinstance(data.get(name), list):
            data[name] = [rename_block(block, (name, index)) for index, block in enumerate(data[name])]
    return data, replace(source, lines=lines), warnings


def _move_lines(lines: Mapping[KeyPath, int], old_path: KeyPath, new_path: KeyPath) -> dict[KeyPath, int]:
    """Return the lines of the values at and under `old_path`, with their key paths under `new_path`."""
    depth = len(old_path)
    return {(*new_path, *path[depth:]): line for path, line in lines.items() if path[:depth] == old_path}


def missing_plugin_warnings(file: PolicyFile) -> Iterator[str]:
    """Warn about each setting that has no effect because the plugin that it needs is not installed."""
    yield from _missing_key_warnings(file)
    owner_by_kind = file.declarations.missing_correctors
    for name, path in corrector_names(file).items():
        kind = plugin_kind(name, file.plugins.correctors.get(name, {}))
        if kind in owner_by_kind:
            feature = f"{file.source.place_of(*path)}: corrector {quote_name(name)}"
            yield missing_plugin_text(feature, owner_by_kind[kind])
    for (block_name, key), owner in file.declarations.missing_settings.items():
        if key in getattr(file, block_name).model_fields_set:
            yield missing_plugin_text(f"{file.source.place_of(block_name, key)}: {block_name}.{key}", owner)


def _missing_key_warnings(file: PolicyFile) -> Iterator[str]:
    """Warn about keys, and words of `objectives: WORD`, whose plugin is not installed."""
    owner_by_key = file.declarations.missing_keys
    owner_by_selector = file.declarations.missing_selectors
    for path, block in file.blocks():
        for key, owner in owner_by_key.items():
            if getattr(block, key, None) is not None:
                yield missing_plugin_text(f"{file.source.place_of(*path, key)}: {key}", owner)
        selector = route_selector(block)
        if selector is not None and selector.word in owner_by_selector:
            place = file.source.place_of(*path, "objectives")
            yield missing_plugin_text(f"{place}: objectives: {selector.word}", owner_by_selector[selector.word])
