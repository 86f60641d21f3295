"""Which objectives apply to a request, in order, and what else it may ask for.

Enforced ones come first, then the route's, then those that the request may add. A request for something that it may not
have is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aligner_proxy.errors import ForbiddenError
from aligner_proxy.policy.metadata_layers import Layer
from aligner_proxy.policy.request_facts import RequestFacts
from aligner_proxy.policy.schema import EVERY, PolicyFile, Route, route_objectives, route_selector
from aligner_proxy.policy.yaml_file import YamlSource
from aligner_proxy.types import Objective, Selection


def choose_objectives(
    file: PolicyFile,
    facts: RequestFacts,
    route: Sequence[Layer],
    grants: Sequence[Layer],
    configured: Mapping[str, Objective],
) -> tuple[tuple[Objective, ...], tuple[tuple[str, str], ...], Selection | None]:
    """The objectives of a request in order, (name, origin) of each, and the selection if a plugin chooses some.

    Raises `ForbiddenError` if the request asks for what its tenant may not have.
    """
    origins_by_name: dict[str, str] = {}
    for layer in grants:
        for n, name in enumerate(getattr(layer.values, "enforce", ())):
            origins_by_name.setdefault(name, layer.origin(file.source, "enforce", n))
    enforced = tuple(origins_by_name)
    selector = None
    for layer in route:
        assert isinstance(layer.values, Route)
        selector = route_selector(layer.values)
        for name, path in route_objectives(layer.values, configured):
            origins_by_name.setdefault(name, layer.origin(file.source, *path))
    # Before the request's objectives are added: an objective that applies without them needs no permission.
    _refuse_forbidden(facts, origins_by_name, grants, configured)
    selection = None
    # Without the plugin that would choose, all of these objectives apply.
    if selector is not None and selector.word not in file.declarations.missing_selectors:
        # What is enforced or asked for always stays.
        candidates = tuple(name for name in origins_by_name if name not in (*enforced, *facts.asked))
        selection = Selection(selector.word, candidates, enforced, selector)
    origins_by_name |= {name: "request" for name in facts.asked if name not in origins_by_name}
    origins = tuple((f"objective:{name}", origin) for name, origin in origins_by_name.items())
    return tuple(configured[name] for name in origins_by_name), origins, selection


def _refuse_forbidden(
    facts: RequestFacts,
    present: Mapping[str, str],
    grants: Sequence[Layer],
    configured: Mapping[str, Objective],
) -> None:
    """Raise `ForbiddenError` for a bypass or the first objective in the request that is not permitted.

    A request may name an objective that applies anyway, unless that objective is denied.
    """
    if facts.bypass and not may_bypass(grants):
        raise ForbiddenError("this key may not bypass alignment; its tenant needs allow_bypass: true")
    allowed = set(configured) if facts.is_operator else _allowed_objectives(grants, configured)
    denied = _denied_names(grants)
    for n, name in enumerate(facts.asked, 1):
        # LiteLLM logs these messages, so they neither repeat the client's text nor reveal other tenants'
        # objectives.
        if name in denied:
            raise ForbiddenError(f"number {n} of the requested objectives is denied for this key")
        if name not in allowed and name not in present:
            names = ", ".join(sorted(allowed))
            offer = f"it may ask for: {names}" if names else "it may not add any objective"
            raise ForbiddenError(f"number {n} of the requested objectives is not allowed for this key; {offer}")


def _allowed_objectives(grants: Sequence[Layer], configured: Mapping[str, Objective]) -> set[str]:
    """The objectives that a request may add. An untrusted list can only shorten the list before it."""
    allowed = set[str]()
    for layer in grants:
        allow = getattr(layer.values, "allow", None)
        if allow is not None:
            names = set(configured) if EVERY in allow else set(allow)
            allowed = names if layer.trusted else names & allowed
    return allowed - _denied_names(grants)


def may_use_own_words(grants: Sequence[Layer]) -> bool:
    """Whether a request may bring objectives in its own words. An untrusted list can only forbid it."""
    allows_every = False
    for layer in grants:
        allow = getattr(layer.values, "allow", None)
        if allow is not None:
            allows_every = EVERY in allow and (layer.trusted or allows_every)
    return allows_every


def _denied_names(grants: Sequence[Layer]) -> set[str]:
    """Names of the objectives that some layer denies to requests."""
    return {name for layer in grants for name in getattr(layer.values, "deny", ())}


def may_bypass(grants: Sequence[Layer]) -> bool:
    """Whether the request may opt out of correction, by the last layer that says so."""
    values = (getattr(layer.values, "allow_bypass", None) for layer in reversed(grants))
    return next((value for value in values if value is not None), False)


def deny_origins(source: YamlSource, grants: Sequence[Layer]) -> tuple[tuple[str, str], ...]:
    """The origin of each denied objective: the first layer that denies it."""
    origins: dict[str, str] = {}
    for layer in grants:
        for n, name in enumerate(getattr(layer.values, "deny", ())):
            origins.setdefault(f"deny:{name}", layer.origin(source, "deny", n))
    return tuple(origins.items())
