"""No class is a validator: since Python 3.12 an enumeration takes `(*values)`, and pydantic takes that for none.

Such a one loads on 3.11 and stops the gateway at its start on 3.12 and 3.13.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Annotated, Any, get_args, get_origin

import pytest
from pydantic import AfterValidator, BaseModel, BeforeValidator, PlainValidator, WrapValidator

import aligner_proxy

VALIDATORS = (AfterValidator, BeforeValidator, PlainValidator, WrapValidator)


def models() -> list[type[BaseModel]]:
    for module in pkgutil.walk_packages(aligner_proxy.__path__, "aligner_proxy."):
        if module.name.startswith(("aligner_proxy.policy.", "aligner_proxy.gateway.endpoints.")):
            importlib.import_module(module.name)
    found = list[type[BaseModel]]()
    waiting = [BaseModel]
    while waiting:
        below = waiting.pop().__subclasses__()
        waiting += below
        found += [model for model in below if model.__module__.startswith("aligner_proxy")]
    return found


def validators(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) is Annotated:
        yield from (each.func for each in annotation.__metadata__ if isinstance(each, VALIDATORS))
    for part in get_args(annotation):
        yield from validators(part)


@pytest.mark.parametrize("model", models(), ids=lambda model: f"{model.__module__}.{model.__qualname__}")
def test_validators_are_functions(model: type[BaseModel]) -> None:
    for name, field in model.model_fields.items():
        own = [each.func for each in field.metadata if isinstance(each, VALIDATORS)]
        assert not [v for v in (*own, *validators(field.annotation)) if isinstance(v, type)], name
