"""Arguments that begin with a dash and are no options: `pubsub pub temp -5`."""

from __future__ import annotations

import re
from typing import Any

from cli.mosquitto import KnowsMosquitto, UsageError

OPTION = re.compile(r"--?[A-Za-z]")
"""How options begin. A mistyped one is an error and never a message: `-- --retian` says it is."""


class DashedArguments(KnowsMosquitto):
    """A command whose arguments may begin with a dash, if no letter follows it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        valued = {
            name
            for parameter in self.params
            if parameter.param_type_name == "option" and not getattr(parameter, "is_flag", False)
            for name in parameter.opts
        }
        options: list[str] = []
        arguments: list[str] = []
        left = iter(args)
        for arg in left:
            if arg == "--":
                arguments += left
            elif OPTION.match(arg):
                options.append(arg)
                if _takes_the_next(arg, valued):
                    value = next(left, None)
                    if value is None:  # Not to be taken for `--`.
                        return super().parse_args(ctx, options)
                    options.append(value)
            else:
                arguments.append(arg)
        ctx.allow_extra_args = True
        if super().parse_args(ctx, [*options, "--", *arguments]):
            raise UsageError(
                f"{len(arguments)} arguments are too many: put quotes around a message of several"
                " words",
                ctx=ctx,
            )
        return []


def _takes_the_next(option: str, valued: set[str]) -> bool:
    """Whether the value of `option` is the next argument, and not a part of it."""
    if option.startswith("--"):
        return option in valued
    for index, letter in enumerate(option[1:], 2):
        if f"-{letter}" in valued:
            return index == len(option)
    return False
