"""Page of the policies file: every key with its type, default, meaning and an example, from the JSON schema."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from aligner_proxy.plugins import registry
from aligner_proxy.policy.request_facts import RequestFacts
from aligner_proxy.policy.resolver import PolicyResolver
from scripts.reference.json_types import BOOLEAN, definition, plain_number, type_words
from scripts.reference.markdown import code, page, sentence, table

EXAMPLES = Path(__file__).with_name("policy_examples.yaml")
INTRODUCTION = """
The policies file decides how each request is treated. For example, a route can set the objectives for all requests to
`gpt-*`, and a tenant's entry can enforce one of them for a team. LiteLLM's own file, or the
environment variable `ALIGNER_PROXY_POLICIES`, gives the path of the policies file. If the policies file has an unknown
key, the gateway refuses the file, and names the line and the most similar known key.
`aligner-proxy check FILE` prints the policy that a request gets, and the line from which each value comes.
`configs/policies.yaml` is an example to start from.

A setting may have values from several places, of which the last one counts. Their order is: the default in the tables
below, `defaults`, the first route that matches, the first tenant that matches, the metadata of a LiteLLM team, and the
metadata of a LiteLLM key. Metadata can only make a policy stricter, unless [`trust`](#trust) allows more.
"""


@dataclass(frozen=True)
class Section:
    """One table: the keys at one place of the file."""

    heading: str
    place: tuple[str, ...]
    """The keys that lead to it from the top of the file."""
    introduction: str


SECTIONS = (
    Section("Settings", ("defaults",), "These keys may be in `defaults`, in a route or a tenant, or in metadata."),
    Section(
        "on_error",
        ("defaults", "on_error"),
        "These keys say what the gateway does after a failure of each class. A single word applies to every class.",
    ),
    Section(
        "on_skip",
        ("defaults", "on_skip"),
        "These keys say, for each reason, what the gateway does with an answer that it would skip for this reason.",
    ),
    Section(
        "gate",
        ("defaults", "gate"),
        "An edit must not break these rules. They are in the order in which the gateway reports them; "
        "[the gate](../explain/gate.md) explains them. All rules are on by default.",
    ),
    Section(
        "editor",
        ("defaults", "editor"),
        "An editor is a model group that rewrites flagged text ([editor](../guides/editor.md)).",
    ),
    Section(
        "judge",
        ("defaults", "judge"),
        "A judge is a model that gives a second opinion ([judge](../guides/judge.md)). "
        "One of the keys chat, guard, decisions and tokens names it.",
    ),
    Section("routes", ("routes",), "These keys may be in an entry of `routes`, in addition to the settings."),
    Section(
        "routes: match",
        ("routes", "match"),
        "These keys say to which requests a route applies. A key that is left out matches every request.",
    ),
    Section(
        "routes: objectives chosen by prompt",
        ("routes", "objectives"),
        "A neural net weighs the objectives for each prompt ([objectives chosen by prompt](../guides/meal.md)).",
    ),
    Section(
        "routes: hand_off",
        ("routes", "hand_off"),
        "These keys set the webhook that gets reports of doubtful answers ([feedback](../guides/feedback.md)).",
    ),
    Section("tenants", ("tenants",), "These keys may be in an entry of `tenants`, in addition to the settings."),
    Section("tenants: match", ("tenants", "match"), "These keys say to whose requests the entry of a tenant applies."),
    Section(
        "objectives",
        ("objectives",),
        "These keys describe an objective with examples. An objective without examples is just its text.",
    ),
    Section(
        "aligner",
        ("aligner",),
        "These keys describe the aligner and its engine. If you change them, restart the gateway.",
    ),
    Section(
        "aligner: engine",
        ("aligner", "engine"),
        "These keys describe an engine that needs more than an address ([scaling](../guides/scaling.md)).",
    ),
    Section("trust", ("trust",), "These keys say who may loosen a policy, besides this file."),
    Section("cache", ("cache",), "The cache stores corrections. If you change these keys, restart the gateway."),
    Section(
        "shadow",
        ("shadow",),
        "These keys limit how many answers each worker corrects only for the record (`mode: shadow`).",
    ),
    Section("streams", ("streams",), "These keys limit how much text streams may hold back in each worker."),
    Section("audit", ("audit",), "These keys describe the [audit store](../guides/operations.md#audit)."),
    Section("plugins", ("plugins",), "These keys have the settings of [plugins](../guides/plugins.md)."),
)
LINKED = ("on_error", "on_skip", "gate")
"""Settings with a table of their own."""
_BESIDE_SETTINGS = ("routes", "tenants")
"""Sections with keys beside the settings, which have a table of their own."""

SWITCH = {True: "on", False: "off"}


@cache
def schema() -> dict[str, Any]:
    """The JSON schema of the policies file, including the keys of the bundled plugins."""
    return registry.schema()


@cache
def examples() -> dict[str, dict[str, Any]]:
    """Heading of a section -> key -> example value."""
    loaded: dict[str, dict[str, Any]] = yaml.safe_load(EXAMPLES.read_text(encoding="utf-8"))
    return loaded


@cache
def resolved_defaults() -> Mapping[str, Any]:
    """The settings that a request gets from an empty file; the schema has no defaults for settings."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "policies.yaml"
        path.write_text("defaults: {mode: enforce}\n", encoding="utf-8")
        resolver = PolicyResolver(registry.load_policies(path))
    return resolver.settings(resolver.resolve(RequestFacts("any")))


def block_at(place: tuple[str, ...]) -> Mapping[str, Any]:
    """The schema of the block to which these keys lead."""
    block = schema()
    for key in place:
        (block,) = _blocks(block["properties"][key])
    return block


def properties(section: Section) -> dict[str, dict[str, Any]]:
    """The keys that the section's table shows, with their schemas."""
    others = block_at(("defaults",))["properties"] if section.heading in _BESIDE_SETTINGS else {}
    return {key: value for key, value in block_at(section.place)["properties"].items() if key not in others}


def _blocks(value: Mapping[str, Any]) -> Iterator[Any]:
    """The blocks with fixed keys that a value may be, also inside a list or under a name."""
    value = definition(value, schema()["$defs"])
    if value.get("properties"):
        yield value
    for choice in (*value.get("anyOf", ()), *value.get("oneOf", ()), *value.get("patternProperties", {}).values()):
        yield from _blocks(choice)
    if "items" in value:
        yield from _blocks(value["items"])


def policy_page() -> str:
    """The whole page."""
    sections = [_top_level(), *(_section(section) for section in SECTIONS)]
    return page("Policies file", INTRODUCTION, *sections)


def _top_level() -> str:
    anchors = {section.heading for section in SECTIONS}
    rows = []
    for key, value in schema()["properties"].items():
        described = definition(value.get("items", value), schema()["$defs"])
        meaning = value.get("description") or described.get("description", "")
        target = "settings" if key == "defaults" else key
        name = f"[`{key}`](#{target})" if target in anchors else code(key)
        rows.append((name, type_words(value, schema()["$defs"]), sentence(meaning), _example((), "file", key)))
    return "## The file\n\n" + table(("key", "type", "what it does", "example"), rows)


def _section(section: Section) -> str:
    rows = [
        (
            code(key),
            type_words(value, schema()["$defs"]),
            _default(section, key, value),
            sentence(value.get("description", "")),
            example,
        )
        for key, value in properties(section).items()
        for example in [_example(_keys_around(section), section.heading, key)]
    ]
    titles = ("key", "type", "default", "what it does", "example")
    return f"## {section.heading}\n\n{section.introduction}\n\n" + table(titles, rows)


def _keys_around(section: Section) -> tuple[str, ...]:
    """The keys around the examples of a section; none are shown for settings and for entries beside them."""
    if section.heading in ("Settings", *_BESIDE_SETTINGS):
        return ()
    return ("objectives", "NAME") if section.heading == "objectives" else section.place[-1:]


def _example(keys_around: tuple[str, ...], heading: str, key: str) -> str:
    """The example on one line, inside the keys around it."""
    value: Any = {key: examples()[heading][key]}
    if heading == "gate":
        return code(f"gate: {{{key}: {SWITCH[value[key]]}}}")
    for name in reversed(keys_around):
        value = {name: value}
    line = yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False, allow_unicode=True).strip()
    return code(line.removeprefix("{").removesuffix("}"))


def _default(section: Section, key: str, value: Mapping[str, Any]) -> str:
    """The default if the key is missing."""
    if key in LINKED and section.heading == "Settings":
        return f"[below](#{key})"
    default = value.get("default")
    if section.heading == "Settings":
        default = resolved_defaults()[key]
    elif section.heading in LINKED:
        default = resolved_defaults().get(f"{section.heading}.{key}", True)
    if isinstance(default, dict):  # for a block show the value of its first key, such as the address of an engine
        default = ", ".join(next(iter(default.values()), []))
    if default is None and type_words(value, schema()["$defs"]) == BOOLEAN:
        default = False
    if default in (None, [], (), ""):
        return ""
    return code(_write_yaml(default, section.heading))


def _write_yaml(value: object, heading: str) -> str:
    """A value as written in YAML; the gate's rules are on or off."""
    if isinstance(value, bool):
        return SWITCH[value] if heading == "gate" else str(value).lower()
    return plain_number(value)
