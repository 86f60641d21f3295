"""Page of the HTTP API: the gateway's endpoints from their OpenAPI, the engine's, and the console's addresses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock, create_autospec

from fastapi import FastAPI
from starlette.routing import BaseRoute, Route

from aligner_proxy.engine import api as engine_api
from aligner_proxy.engine.server.app import create_app
from aligner_proxy.gateway.endpoints import routes as gateway_routes
from aligner_proxy.plugins import registry
from aligner_proxy.plugins.extensions import Extensions
from aligner_proxy_review.console.application import Console
from scripts.reference.json_types import definition, type_words
from scripts.reference.markdown import code, page, sentence, table
from scripts.reference.words import load_texts

INTRODUCTION = """
The gateway serves LiteLLM's API, whose answers it corrects ([what is
corrected](../guides/operations.md#what-is-corrected)), and the endpoints on this page. LiteLLM's API keys, limits and
errors apply to these endpoints, and LiteLLM's OpenAPI document (`/openapi.json`) shows them. For example:

```sh
curl -s localhost:4000/v1/align -H "Authorization: Bearer $KEY" -H "Content-Type: application/json" \\
  -d '{"messages": [{"role": "user", "content": "How many legs has a spider?"}], "answer": "Eight, you fool."}'
```
"""
ENGINE = """
Gateways call the engine over a unix socket or a port (`aligner-proxy engine`). The engine answers in JSON. An
error is `{"error": {"reason": ..., "message": ...}}`. Anyone who can reach the engine's address can use the engine, so
do not expose the address.
"""
CONSOLE = """
The console serves HTML pages ([console](../guides/console.md)). Each of its forms contains a token, so that
other sites cannot forge requests.
"""

CONFIG = Path(__file__).parents[2] / "configs" / "litellm.yaml"

Schema = Mapping[str, Any]


def gateway_document() -> dict[str, Any]:
    """The OpenAPI document of the gateway's own endpoints and of the bundled plugins' endpoints."""
    app = FastAPI()
    plugins = registry.load_plugins(False).plugins
    endpoints = [endpoint for plugin in plugins for endpoint in plugin.endpoints]
    extensions = Extensions(extension for plugin in plugins for extension in plugin.extensions)
    endpoints_by_path = {endpoint.path: registry.PluginEndpoint(endpoint, MagicMock()) for endpoint in endpoints}
    hooks = MagicMock(endpoints=endpoints_by_path, pipeline=MagicMock(extensions=extensions))
    gateway_routes.add_endpoints(app, lambda: None, hooks)
    return app.openapi()


def engine_endpoints() -> list[str]:
    """Method and path of each endpoint of an engine with its own model."""
    return list(_endpoints(create_app(create_autospec(engine_api.Local, instance=True)).routes))


def console_endpoints() -> list[str]:
    """Method and path of every page and form of the console."""
    console = Console(CONFIG, "sk-none", MagicMock())
    return list(_endpoints(console.application().routes))


def http_page() -> str:
    """The whole page."""
    document = gateway_document()
    schemas = document["components"]["schemas"]
    gateway = [
        _operation(f"{method.upper()} {path}", operation, schemas)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    return page(
        "HTTP API",
        INTRODUCTION,
        "## Gateway",
        *gateway,
        f"## Engine\n\n{ENGINE.strip()}\n\n{_endpoint_table('engine')}",
        *_engine_bodies(),
        f"## Console\n\n{CONSOLE.strip()}\n\n{_endpoint_table('console')}",
    )


def _endpoints(routes: Iterable[BaseRoute]) -> Iterator[str]:
    for route in routes:
        if isinstance(route, Route):
            yield from (f"{method} {route.path}" for method in sorted((route.methods or set()) - {"HEAD"}))


def _endpoint_table(part: str) -> str:
    return table(("endpoint", "what it does"), [(code(name), meaning) for name, meaning in load_texts()[part].items()])


def _operation(name: str, operation: Schema, schemas: Schema) -> str:
    """One endpoint: its description, the fields of its body and its answer, and its errors."""
    parts = [f"### {name}", sentence(operation.get("description", ""))]
    body = _content(operation.get("requestBody", {}))
    parts += ["The body:", _fields(definition(body, schemas), schemas)] if body else []
    for status, response in operation["responses"].items():
        answer = _content(response)
        if status.startswith("2") and answer:
            parts += [f"The answer ({status}):", _fields(definition(answer, schemas), schemas)]
    responses = sorted(operation["responses"].items())
    errors = [(status, response["description"]) for status, response in responses if not status.startswith("2")]
    return "\n\n".join([*parts, table(("error", "when"), errors)])


def _content(place: Schema) -> Schema:
    schema: Schema = place.get("content", {}).get("application/json", {}).get("schema", {})
    return schema


def _fields(schema: Schema, schemas: Schema) -> str:
    return table(("field", "type", "what it is"), _field_rows(schema, schemas, prefix=""))


def _field_rows(schema: Schema, schemas: Schema, prefix: str) -> Iterator[tuple[str, str, str]]:
    """Rows for the fields of an object; a field with objects is followed by the fields of these."""
    required = set(schema.get("required", ()))
    for name, value in schema.get("properties", {}).items():
        needed = "" if name not in required or prefix else ", required"
        yield code(prefix + name), type_words(value, schemas) + needed, sentence(value.get("description", ""))
        below = definition(value.get("items", value), schemas)
        if below.get("properties"):
            mark = "[]." if value.get("type") == "array" else "."
            yield from _field_rows(below, schemas, f"{prefix}{name}{mark}")


def _engine_bodies() -> Iterator[str]:
    for name, form in load_texts()["engine_bodies"].items():
        schema = getattr(engine_api, form).model_json_schema()
        fields = _fields(schema, schema.get("$defs", {}))
        yield f"### {name}\n\n{sentence(schema.get('description', ''))}\n\n{fields}"
