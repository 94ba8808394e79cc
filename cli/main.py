"""The `pubsub` command: the list of its commands, and what an error means to a script."""

from __future__ import annotations

import os
import sys
import threading
from typing import Annotated

import typer

from broker import __version__
from broker.errors import (
    ConfigError,
    PeerError,
    StoreBusy,
    StoreDenied,
    StoreError,
    StoreFull,
    StoreInUse,
)
from cli.commands import (
    acl,
    backup,
    bench,
    broker_reload,
    broker_retire,
    broker_start,
    broker_status,
    broker_stop,
    cert_create,
    cert_revoke,
    check,
    cluster,
    compact,
    context,
    dead_letters,
    export,
    group,
    import_file,
    log,
    log_get,
    log_topics,
    log_trim,
    pub,
    quota,
    restore,
    retained,
    retained_get,
    retained_history,
    retained_rm,
    retained_undo,
    salvage,
    sql,
    sub,
    subscribers,
    subscribers_fork,
    subscribers_rm,
    subscribers_seek,
    subscribers_show,
    user,
)
from cli.dashes import DashedArguments
from cli.mosquitto import KnowsMosquitto
from cli.subcommands import with_subcommands
from cli.terminal import output
from cli.terminal.failure import CommandFailed, ConnectionLost, Exit, OutputClosed

app = typer.Typer(
    name="pubsub",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    epilog="""\b
Examples:
  pubsub broker start
  pubsub sub weather --id sub1
  pubsub pub weather "Rainy day ahead!"
  pubsub sub --id sub1 --resume
  pubsub log
""",
)
broker = typer.Typer(
    help="Start, look at and stop the broker.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(broker, name="broker")
below_log = typer.Typer(rich_markup_mode=None)
below_retained = typer.Typer(rich_markup_mode=None)
below_subscribers = typer.Typer(rich_markup_mode=None)
"""Commands whose first words are `pubsub log`, `pubsub retained` and `pubsub subscribers`."""

groups = typer.Typer(
    help="Make, look at and remove groups of workers.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(groups, name="group")
quotas = typer.Typer(help="Limit what users may use.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(quotas, name="quota")
shared_log = typer.Typer(
    help="Let several brokers share a log.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(shared_log, name="cluster")
contexts = typer.Typer(
    help="Name brokers, and select one.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(contexts, name="context")
accounts = typer.Typer(
    help="Add, change and remove users.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(accounts, name="user")
permissions = typer.Typer(help="Say who may do what.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(permissions, name="acl")
below_dead_letters = typer.Typer(rich_markup_mode=None)
"""Commands whose first words are `pubsub dead-letters`."""

broker.command("start", epilog=broker_start.EXAMPLES)(broker_start.run)
broker.command("reload", epilog=broker_reload.EXAMPLES)(broker_reload.run)
broker.command("status", epilog=broker_status.EXAMPLES)(broker_status.run)
broker.command("retire", epilog=broker_retire.EXAMPLES)(broker_retire.run)
broker.command("stop", epilog=broker_stop.EXAMPLES)(broker_stop.run)
app.command("pub", epilog=pub.EXAMPLES, cls=DashedArguments)(pub.run)
app.command("sub", epilog=sub.EXAMPLES, cls=KnowsMosquitto)(sub.run)
app.command("log", epilog=log.EXAMPLES, cls=with_subcommands(below_log))(log.run)
below_log.command("get", epilog=log_get.EXAMPLES)(log_get.run)
below_log.command("topics", epilog=log_topics.EXAMPLES)(log_topics.run)
app.command("retained", epilog=retained.EXAMPLES, cls=with_subcommands(below_retained))(
    retained.run
)
below_retained.command("ls", epilog=retained.EXAMPLES)(retained.run)
below_retained.command("get", epilog=retained_get.EXAMPLES)(retained_get.run)
below_retained.command("history", epilog=retained_history.EXAMPLES)(retained_history.run)
below_retained.command("rm", epilog=retained_rm.EXAMPLES)(retained_rm.run)
below_retained.command("undo", epilog=retained_undo.EXAMPLES)(retained_undo.run)
app.command("export", epilog=export.EXAMPLES)(export.run)
app.command("import", epilog=import_file.EXAMPLES)(import_file.run)
app.command("sql", epilog=sql.EXAMPLES)(sql.run)
app.command("subscribers", epilog=subscribers.EXAMPLES, cls=with_subcommands(below_subscribers))(
    subscribers.run
)
below_subscribers.command("ls", epilog=subscribers.EXAMPLES)(subscribers.run)
below_subscribers.command("show", epilog=subscribers_show.EXAMPLES)(subscribers_show.run)
below_subscribers.command("seek", epilog=subscribers_seek.EXAMPLES)(subscribers_seek.run)
below_subscribers.command("fork", epilog=subscribers_fork.EXAMPLES)(subscribers_fork.run)
below_subscribers.command("rm", epilog=subscribers_rm.EXAMPLES)(subscribers_rm.run)
below_log.command("trim", epilog=log_trim.EXAMPLES)(log_trim.run)
shared_log.command("up", epilog=cluster.EXAMPLES["up"])(cluster.up)
shared_log.command("init", epilog=cluster.EXAMPLES["init"])(cluster.init)
shared_log.command("status", epilog=cluster.EXAMPLES["status"])(cluster.status)
shared_log.command("config", epilog=cluster.EXAMPLES["config"])(cluster.config)
groups.command("create", epilog=group.EXAMPLES["create"])(group.create)
groups.command("ls", epilog=group.EXAMPLES["ls"])(group.ls)
groups.command("show", epilog=group.EXAMPLES["show"])(group.show)
groups.command("seek", epilog=group.EXAMPLES["seek"])(group.seek)
groups.command("rm", epilog=group.EXAMPLES["rm"])(group.rm)
accounts.command("add", epilog=user.EXAMPLES["add"])(user.add)
accounts.command("passwd", epilog=user.EXAMPLES["passwd"])(user.passwd)
accounts.command("roles", epilog=user.EXAMPLES["roles"])(user.roles)
accounts.command("rm", epilog=user.EXAMPLES["rm"])(user.rm)
accounts.command("ls", epilog=user.EXAMPLES["ls"])(user.ls)
accounts.command("import", epilog=user.EXAMPLES["import"])(user.take)
permissions.command("add", epilog=acl.EXAMPLES["add"])(acl.add)
permissions.command("rm", epilog=acl.EXAMPLES["rm"])(acl.rm)
permissions.command("ls", epilog=acl.EXAMPLES["ls"])(acl.ls)
permissions.command("check", epilog=acl.EXAMPLES["check"])(acl.check)
permissions.command("import", epilog=acl.EXAMPLES["import"])(acl.take)
app.command(
    "dead-letters", epilog=dead_letters.EXAMPLES["ls"], cls=with_subcommands(below_dead_letters)
)(dead_letters.ls)
below_dead_letters.command("ls", epilog=dead_letters.EXAMPLES["ls"])(dead_letters.ls)
below_dead_letters.command("show", epilog=dead_letters.EXAMPLES["show"])(dead_letters.show)
below_dead_letters.command("redrive", epilog=dead_letters.EXAMPLES["redrive"])(dead_letters.redrive)
below_dead_letters.command("drop", epilog=dead_letters.EXAMPLES["drop"])(dead_letters.drop)
quotas.command("set", epilog=quota.EXAMPLES["set"])(quota.put)
quotas.command("ls", epilog=quota.EXAMPLES["ls"])(quota.ls)
quotas.command("rm", epilog=quota.EXAMPLES["rm"])(quota.rm)
contexts.command("add", epilog=context.EXAMPLES["add"])(context.add)
contexts.command("select", epilog=context.EXAMPLES["select"])(context.select)
contexts.command("ls", epilog=context.EXAMPLES["ls"])(context.ls)
contexts.command("rm", epilog=context.EXAMPLES["rm"])(context.rm)
app.command("check", epilog=check.EXAMPLES)(check.run)
app.command("backup", epilog=backup.EXAMPLES)(backup.run)
app.command("restore", epilog=restore.EXAMPLES)(restore.run)
app.command("compact", epilog=compact.EXAMPLES)(compact.run)
app.command("salvage", epilog=salvage.EXAMPLES)(salvage.run)
certificates = typer.Typer(
    help="Make certificates for TLS.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(certificates, name="cert")
certificates.command("create", epilog=cert_create.EXAMPLES)(cert_create.run)
certificates.command("revoke", epilog=cert_revoke.EXAMPLES)(cert_revoke.run)
app.command("bench", epilog=bench.EXAMPLES)(bench.run)


def _show_version(wanted: bool) -> None:
    if wanted:
        output.text(f"pubsub {__version__}\n")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="The version.")
    ] = False,
) -> None:
    """A durable publish-subscribe broker that speaks MQTT, and its commands."""


def _code_of(error: StoreError) -> Exit:
    match error:
        case StoreDenied():
            return Exit.NOT_AUTHORIZED
        case StoreFull() | StoreBusy() | StoreInUse():
            return Exit.FAILED
        case _:
            return Exit.STORE_DAMAGED


def main() -> None:
    """Run the command. One line on standard error for what went wrong, and its exit code."""
    try:
        app(prog_name="pubsub")
    except OutputClosed:
        code = Exit.OK
    except ConnectionLost as error:
        output.error(f"connection lost: {error}")
        code = Exit.UNREACHABLE
    except CommandFailed as error:
        output.error(str(error))
        code = error.code
    except (ConfigError, PeerError) as error:
        output.error(str(error))
        code = Exit.USAGE
    except StoreError as error:
        output.error(str(error))
        code = _code_of(error)
    if _something_hangs():
        # In a call to a disk that does not answer. The interpreter would wait for it for ever.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _something_hangs() -> bool:
    """Whether a thread is left that an end of the process waits for."""
    return any(not thread.daemon for thread in threading.enumerate()[1:])


if __name__ == "__main__":
    main()
