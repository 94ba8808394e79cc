"""Blocks of options that several commands have, written once: a dataclass, one field an option.

    @with_blocks
    def run(topic: ..., *, broker: BrokerOptions) -> None: ...

To typer it is a command with the options of `BrokerOptions`; `run` gets them as one object.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import wraps
from typing import Any, get_type_hints


def with_blocks(run: Callable[..., None]) -> Callable[..., None]:
    """Each parameter that is a dataclass becomes an option for each of its fields."""
    hints = get_type_hints(run, include_extras=True)
    blocks: dict[str, type[Any]] = {}
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(run).parameters.items():
        if not is_dataclass(hints[name]):
            parameters.append(parameter.replace(annotation=hints[name]))
            continue
        block = hints.pop(name)
        blocks[name] = block
        of_fields = get_type_hints(block, include_extras=True)
        for field in fields(block):
            hints[field.name] = of_fields[field.name]
            parameters.append(
                inspect.Parameter(
                    field.name,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=field.default,
                    annotation=of_fields[field.name],
                )
            )

    @wraps(run)
    def command(**given: Any) -> None:
        for name, block in blocks.items():
            given[name] = block(**{field.name: given.pop(field.name) for field in fields(block)})
        run(**given)

    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # typer asks it
    command.__annotations__ = hints
    return command
