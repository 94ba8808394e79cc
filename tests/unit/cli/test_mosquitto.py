"""Who types an option of mosquitto_pub or mosquitto_sub is told what it is called here."""

from __future__ import annotations

import pytest
import typer

from cli.main import app
from cli.mosquitto import UsageError

# As `mosquitto_pub --help` and `mosquitto_sub --help` of 2.0 list them.
BOTH = """-A -c -d -D -h -i -I -k -L -M -p -P -q -S -t -u -V -x --help --quiet --version --unix
--will-payload --will-qos --will-retain --will-topic --proxy --cafile --capath --cert --ciphers
--key --keyform --insecure --tls-alpn --tls-engine --tls-engine-kpass-sha1 --tls-keylog
--tls-use-os-certs --tls-version --psk --psk-identity"""
PUB = "-f -l -m -n -r -s --nodelay --repeat --repeat-delay"
SUB = """-C -E -F -N -R -T -U -v -W --pretty --random-filter --remove-retained --retain-as-published
--retain-handling --retained-only"""
ELSEWHERE = {"--version": "pubsub --version", "--quiet": "2> /dev/null"}


@pytest.mark.parametrize(
    ("command", "options"), [("pub", f"{BOTH} {PUB}"), ("sub", f"{BOTH} {SUB}")]
)
def test_every_option_is_there_or_has_an_answer(command: str, options: str) -> None:
    group = typer.main.get_command(app)
    parameters = group.commands[command].params  # type: ignore[attr-defined]  # a group's
    there = {name for parameter in parameters for name in parameter.opts} | {"--help"}
    for option in options.split():
        if option in there | ELSEWHERE.keys():
            continue
        with pytest.raises(UsageError) as refused:
            app([command, option, "x"], standalone_mode=False)
        assert refused.value.message.startswith(f"no {option} here: ")


@pytest.mark.parametrize(
    ("command", "option", "says"),
    [("pub", "-C", "it is for pubsub sub"), ("sub", "-l", "it is for pubsub pub")],
)
def test_an_option_of_the_other_command_is_known(command: str, option: str, says: str) -> None:
    with pytest.raises(UsageError) as refused:
        app([command, "a", option, "1"], standalone_mode=False)
    assert says in refused.value.message


@pytest.mark.parametrize("command", ["pub", "sub"])
def test_properties_are_written_otherwise(command: str) -> None:
    with pytest.raises(UsageError, match="a User Property is -D NAME=VALUE"):
        app([command, "a", "-D", "publish", "user-property", "x", "y"], standalone_mode=False)


def test_a_mistyped_option_is_answered_as_ever() -> None:
    with pytest.raises(UsageError) as refused:
        app(["pub", "a", "b", "--retian"], standalone_mode=False)
    assert "No such option: --retian" in refused.value.format_message()
