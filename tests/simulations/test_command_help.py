"""What ``--help`` shows of every command, without calling any."""

import inspect

import click
import pytest
from typer.main import get_command

from simulations.cli import app


def commands(group: click.Command, name: str = "collabedit"):
    if not hasattr(group, "commands"):
        yield name, group
        return
    for part, command in group.commands.items():
        yield from commands(command, f"{name} {part}")


COMMANDS = dict(commands(get_command(app)))


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_an_example_that_it_takes(name):
    command = COMMANDS[name]
    lines = [line.strip() for line in inspect.cleandoc(command.help or "").split("\n")]
    examples = [line for line in lines if line.startswith(name)]
    known = {option for one in command.params for option in one.opts}

    assert examples
    for example in examples:
        options = [word for word in example.split() if word.startswith("--")]
        assert set(options) <= known


@pytest.mark.parametrize("name", COMMANDS)
def test_a_terminal_of_80_columns_does_not_fold_a_line_of_the_text(name):
    first, _, rest = inspect.cleandoc(COMMANDS[name].help or "").partition("\n\n")

    assert first
    assert [line for line in rest.split("\n") if len(line) > 78] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_name_the_same_things_alike(name):
    options = {one.name: set(one.opts) for one in COMMANDS[name].params}
    defaults = {one.name: one.default for one in COMMANDS[name].params}

    assert "--json" in options["as_json"]
    assert options.get("data_format", {"--format"}) == {"--format"}
    assert "output" not in options or "--out" in options["output"]
    assert defaults.get("revision", "") == ""
    assert defaults.get("device", "auto") in ("auto", "cpu")
