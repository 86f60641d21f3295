"""Models of the policies file and of metadata, extended by the keys and selector forms that plugins declare."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, TypeVar, Union

from pydantic import BaseModel, BeforeValidator, Discriminator, Field, Tag, WithJsonSchema, create_model

from aligner_proxy.policy.plugin_keys import AnyOptions, Declarations, PolicyKey, SelectorForm
from aligner_proxy.policy.schema import EVERY, Grants, Names, PolicyFile, PolicySettings, Route, SelectorBlock, Tenant
from aligner_proxy.policy.yaml_file import LIST_FORM

_Model = TypeVar("_Model", bound=BaseModel)

_BUILD_LOCK = threading.Lock()
"""Held while a model is built. Pydantic parses source code for the descriptions, and Python 3.11 keeps one parser depth
counter for all threads, so two at once could fail."""


@lru_cache(maxsize=64)
def file_model(declarations: Declarations) -> type[PolicyFile]:
    """Return the pydantic model of the policies file, extended by the keys and selector forms of plugins."""
    setting_fields = _plugin_fields(key for key in declarations.all_keys if not key.grant)
    grant_fields = _plugin_fields(key for key in declarations.all_keys if key.grant)
    route_model = extend_model(Route, setting_fields | _objectives_field(declarations.all_selectors))
    tenant_model = extend_model(Tenant, setting_fields | grant_fields)
    defaults_model = extend_model(PolicySettings, setting_fields)
    # name -> (type, default)
    block_fields: dict[str, Any] = {
        "defaults": (defaults_model, defaults_model()),
        "routes": (tuple[route_model, ...], ()),  # type: ignore[valid-type]
        "tenants": (tuple[tenant_model, ...], ()),  # type: ignore[valid-type]
    }
    return extend_model(PolicyFile, block_fields)


@lru_cache(maxsize=64)
def grants_model(declarations: Declarations) -> type[Grants]:
    """The model of key and team metadata, extended by the keys of plugins."""
    return extend_model(Grants, _plugin_fields(declarations.all_keys))


_WITHOUT_SOURCE = {"use_attribute_docstrings": False}
"""For models that no source text declares: pydantic would look for one, through all modules for each caller."""


def extend_model(base: type[_Model], fields: Mapping[str, Any]) -> type[_Model]:
    """Return a subclass of `base` with more `fields` (as for `create_model`), and the same name and description."""
    with _BUILD_LOCK:
        model: type[_Model] = create_model(
            base.__name__, __base__=base, __doc__=base.__doc__, __cls_kwargs__=_WITHOUT_SOURCE, **fields
        )
    return model


def _plugin_fields(keys: Iterable[PolicyKey]) -> dict[str, Any]:
    """Return the fields of plugins' keys as pydantic's `create_model` takes them: name -> (type, field)."""
    return {key.name: (key.type | None, Field(default=None, description=key.about)) for key in keys}


def _objectives_field(selectors: Sequence[SelectorForm]) -> dict[str, Any]:
    """The field `objectives` of a route, as for `create_model`: a list of names, or one of these selector forms."""
    if not selectors:
        return {}  # the field stays a list of names
    words = tuple(form.word for form in selectors)
    form_types = [_selector_type(form) for form in selectors]
    names_type = Annotated[Names, Tag(LIST_FORM)]

    def choose_tag(value: object) -> str:
        """Return the tag of the form (list of names, or a selector) as which pydantic is to read this value."""
        if isinstance(value, SelectorBlock):
            return _form_tag(value.word)
        if isinstance(value, Mapping):
            # A block without a known word goes to the first form, which reports what is wrong with it.
            return _form_tag(next((word for word in words if word in value), words[0]))
        if isinstance(value, str) and value in words:
            return _form_tag(value)
        return LIST_FORM

    field_type = Annotated[Union[(names_type, *form_types)], Discriminator(choose_tag)]  # type: ignore[valid-type]
    descriptions = [Route.model_fields["objectives"].description, *(f"{form.word}: {form.about}" for form in selectors)]
    return {"objectives": (field_type, Field(default=(), description=" ".join(filter(None, descriptions))))}


def _selector_type(form: SelectorForm) -> Any:
    """Return the pydantic type of one selector form: the word alone, or a block with the word and its options."""
    names = Field(min_length=1, description='Names of the candidates, most important first; "*": every configured one.')
    create_block: Any = create_model  # mypy cannot check a model with computed fields
    with _BUILD_LOCK:
        block = create_block(
            f"{form.word.title()}Objectives",
            # The config of the later base class decides whether unknown keys are refused.
            __base__=(SelectorBlock, AnyOptions) if form.options is AnyOptions else (form.options, SelectorBlock),
            __doc__=form.about,
            __cls_kwargs__=_WITHOUT_SOURCE,
            **{form.word: (Annotated[Names, names], ...)},
        )
    block.word = form.word

    def expand_word(value: object) -> object:
        """Expand the word alone into its block form, with every objective of the file as a candidate."""
        return {form.word: (EVERY,)} if value == form.word else value

    short_form: Any = Annotated[str, WithJsonSchema({"const": form.word, "type": "string"})]
    input_type = short_form | block
    return Annotated[block, BeforeValidator(expand_word, json_schema_input_type=input_type), Tag(_form_tag(form.word))]


def _form_tag(word: str) -> str:
    """Return the tag of a selector form: pydantic's name for it in error locations, removed from messages later."""
    return f"[{word}]"
