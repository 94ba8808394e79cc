"""A command that also has commands below it: `pubsub log`, and `pubsub log get`.

The first word decides, as long as it is the whole name of a command: `pubsub log get 17` runs that.
Everything else is the command itself. So a Topic Filter that is called like a command comes second
(`pubsub log -- get`, `pubsub log -f get`).
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import typer
from typer.core import TyperCommand

_CHOSEN = "cli.subcommands"
"""Under which a context keeps the name of the command that was chosen, and its arguments."""


def with_subcommands(below: typer.Typer) -> type[TyperCommand]:
    """The class of a command that has the commands of `below`, also those added to it later."""

    class Command(CommandWithSubcommands):
        @cached_property
        def commands(self) -> dict[str, Any]:
            return dict(typer.main.get_group(below).commands)

    return Command


class CommandWithSubcommands(TyperCommand):
    @property
    def commands(self) -> dict[str, Any]:
        """By name."""
        raise NotImplementedError

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] in self.commands:
            ctx.meta[_CHOSEN] = args[0], args[1:]
            return []
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        chosen = ctx.meta.pop(_CHOSEN, None)
        if chosen is None:
            return super().invoke(ctx)
        name, args = chosen
        command = self.commands[name]
        # Beside our own context, whose arguments would stand in the usage line of the other.
        with command.make_context(f"{ctx.info_name} {name}", args, parent=ctx.parent) as below:
            return command.invoke(below)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        super().format_options(ctx, formatter)
        with formatter.section("Commands, as the first word"):
            formatter.write_dl(
                [(name, command.get_short_help_str(60)) for name, command in self.commands.items()]
            )
