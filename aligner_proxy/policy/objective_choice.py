"""The choice of the objectives that apply to a request, in order, and the rights to ask for more.
A layer is one source of settings. `grants` are the layers that may give rights, in order: a tenant's block of the
policies file, and metadata of a team or key. `configured` are all objectives by name.

Enforced objectives come first, then the route's, then those that the request may add. A request that asks for what it
may not have is refused. Objectives that a request brings in its own words, "Name: description", have names that come
from the client, so headers, logs and metrics show a number instead.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence

from aligner_proxy.errors import ForbiddenError
from aligner_proxy.policy.metadata_layers import Layer
from aligner_proxy.policy.request_facts import RequestFacts
from aligner_proxy.policy.schema import EVERY, PolicyFile, Route, route_objectives, route_selector
from aligner_proxy.policy.yaml_file import YamlSource
from aligner_proxy.types import Allowance, Objective, Selection

_OWN_PREFIX = "own:"
"""Prefix of the names of own objectives; no configured name contains a colon, so the two cannot collide."""
_OWN_REFUSAL = 'this key may not bring objectives in its own words; its tenant needs allow: ["*"]'


def choose_objectives(
    file: PolicyFile,
    facts: RequestFacts,
    route: Sequence[Layer],
    grants: Sequence[Layer],
    configured: Mapping[str, Objective],
) -> tuple[tuple[Objective, ...], tuple[tuple[str, str], ...], Selection | None]:
    """Return the objectives of a request in order, name and origin of each, and the selection by a plugin.

    `route` has the layer of the route, or is empty. The selection is None unless a plugin selects some of the
    objectives for each prompt. Raises `ForbiddenError` if the request asks for what its tenant may not have.
    """
    origins_by_name: dict[str, str] = {}
    for layer in grants:
        for index, name in enumerate(getattr(layer.values, "enforce", ())):
            origins_by_name.setdefault(name, layer.origin(file.source, "enforce", index))
    enforced_names = tuple(origins_by_name)
    selector = None
    for layer in route:
        assert isinstance(layer.values, Route)
        selector = route_selector(layer.values)
        for name, path in route_objectives(layer.values, configured):
            origins_by_name.setdefault(name, layer.origin(file.source, *path))
    # Checked before the request's objectives are added, because one that applies anyway needs no permission.
    _refuse_forbidden(facts, origins_by_name, grants, configured)
    selection = None
    # If the plugin that would select is missing, all objectives of the route apply.
    if selector is not None and selector.word not in file.declarations.missing_selectors:
        # Objectives that are enforced or asked for always apply, so the plugin does not choose among them.
        candidates = tuple(name for name in origins_by_name if name not in (*enforced_names, *facts.asked))
        selection = Selection(selector.word, candidates, enforced_names, selector)
    origins_by_name |= {name: "request" for name in facts.asked if name not in origins_by_name}
    origins = tuple((f"objective:{name}", origin) for name, origin in origins_by_name.items())
    return tuple(configured[name] for name in origins_by_name), origins, selection


def _refuse_forbidden(
    facts: RequestFacts, applied_names: Container[str], grants: Sequence[Layer], configured: Mapping[str, Objective]
) -> None:
    """Raise `ForbiddenError` if the request asks for a bypass or an objective that is not permitted.

    A request may ask for one of `applied_names`, which apply to it anyway, unless the objective is denied.
    """
    if facts.bypass and not may_bypass(grants):
        raise ForbiddenError("this key may not bypass alignment; its tenant needs allow_bypass: true")
    allowed_names = set(configured) if facts.is_operator else _allowed_objectives(grants, configured)
    denied_names = _denied_names(grants)
    for number, name in enumerate(facts.asked, 1):
        # LiteLLM logs these messages, so they neither repeat the client's text nor reveal other tenants'
        # objectives.
        if name in denied_names:
            raise ForbiddenError(f"number {number} of the requested objectives is denied for this key")
        if name not in allowed_names and name not in applied_names:
            names = ", ".join(sorted(allowed_names))
            offer = f"it may ask for: {names}" if names else "it may not add any objective"
            raise ForbiddenError(f"number {number} of the requested objectives is not allowed for this key; {offer}")


def _allowed_objectives(grants: Sequence[Layer], configured: Mapping[str, Objective]) -> set[str]:
    """The names of the objectives that a request may add.

    The `allow` list of a layer replaces that of the layer before it; a list that is not trusted can only shorten it.
    """
    allowed_names = set[str]()
    for layer in grants:
        allow_list = getattr(layer.values, "allow", None)
        if allow_list is not None:
            names = set(configured) if EVERY in allow_list else set(allow_list)
            allowed_names = names if layer.trusted else names & allowed_names
    return allowed_names - _denied_names(grants)


def may_use_own_words(grants: Sequence[Layer]) -> bool:
    """Whether a request may bring objectives in its own words: whether the last `allow` list has "*".

    A list that is not trusted cannot permit what the list before it forbids.
    """
    allows_every = False
    for layer in grants:
        allow_list = getattr(layer.values, "allow", None)
        if allow_list is not None:
            allows_every = EVERY in allow_list and (layer.trusted or allows_every)
    return allows_every


def _denied_names(grants: Sequence[Layer]) -> set[str]:
    """The names of the objectives that some layer forbids requests to ask for."""
    return {name for layer in grants for name in getattr(layer.values, "deny", ())}


def may_bypass(grants: Sequence[Layer]) -> bool:
    """Whether a request may opt out of correction: the last layer that sets `allow_bypass` decides; False if none."""
    for layer in reversed(grants):
        is_allowed: bool | None = getattr(layer.values, "allow_bypass", None)
        if is_allowed is not None:
            return is_allowed
    return False


def deny_origins(source: YamlSource, grants: Sequence[Layer]) -> tuple[tuple[str, str], ...]:
    """Return ("deny:NAME", origin) for each denied objective; its origin is where the first layer denies it."""
    origins: dict[str, str] = {}
    for layer in grants:
        for index, name in enumerate(getattr(layer.values, "deny", ())):
            origins.setdefault(f"deny:{name}", layer.origin(source, "deny", index))
    return tuple(origins.items())


def match_known_names(
    requested: Sequence[str], own_texts: Sequence[str], objectives: Mapping[str, Objective]
) -> tuple[str, ...]:
    """Return the requested names, and those of configured `objectives` whose text is one of `own_texts`."""
    name_by_text = {normalise_words(objective.text): name for name, objective in objectives.items()}
    repeated_names = (name_by_text.get(normalise_words(text)) for text in own_texts)
    return tuple(dict.fromkeys((*requested, *filter(None, repeated_names))))


def own_objectives(
    texts: Sequence[str], objectives: Mapping[str, Objective], *, allowed: bool
) -> tuple[Objective, ...]:
    """Return an objective for each text in a request's own words, without those that repeat one of `objectives`.

    Raises `ForbiddenError` if there are any and the request may not bring them (`allowed`).
    """
    if not texts:
        return ()
    configured_texts = {normalise_words(objective.text) for objective in objectives.values()}
    new_texts = dict.fromkeys(text for text in texts if normalise_words(text) not in configured_texts)
    if new_texts and not allowed:
        raise ForbiddenError(_OWN_REFUSAL)
    return tuple(Objective(f"{_OWN_PREFIX}{number}", text, Allowance()) for number, text in enumerate(new_texts, 1))


def client_names(objectives: Iterable[Objective]) -> dict[str, str]:
    """The client's names of its own objectives, by the names that the gateway gave them (own:1, own:2, ...)."""
    return {entry.name: entry.text.partition(":")[0] for entry in objectives if entry.name.startswith(_OWN_PREFIX)}


def normalise_words(text: str) -> str:
    """The text as it is compared: in lower case, with single spaces."""
    return " ".join(text.split()).casefold()
