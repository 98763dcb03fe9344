"""The commands and their arguments as values, read off the parser: for shells' completion and the manual pages."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module

from cni_v6.ctl import command

NOTHING, FILE, FOLDER = "", "file", "folder"
PROGRAM = "cni-v6ctl"


@dataclass(frozen=True, slots=True)
class Argument:
    """``flags``: () for one by its place. ``value``: how its value is named, "" if it takes none. ``choices``: of it.

    ``kind``: what the value is: FILE, FOLDER or NOTHING that is known. ``help``: without the default.
    """

    flags: tuple[str, ...]
    value: str
    choices: tuple[str, ...]
    help: str
    kind: str
    repeated: bool
    required: bool


@dataclass(frozen=True, slots=True)
class Command:
    """``words``: of the command line, () for the program itself."""

    words: tuple[str, ...]
    help: str
    arguments: tuple[Argument, ...]
    commands: tuple[Command, ...]

    @property
    def options(self) -> tuple[Argument, ...]:
        return tuple(argument for argument in self.arguments if argument.flags)

    @property
    def places(self) -> tuple[Argument, ...]:
        return tuple(argument for argument in self.arguments if not argument.flags)

    def all(self) -> Iterator[Command]:
        """The command, and all below it."""
        yield self
        for below in self.commands:
            yield from below.all()


def tree() -> Command:
    """All of ``cni-v6ctl``."""
    parser, commands = command.parser()
    for module in dict.fromkeys(command.COMMANDS.values()):
        import_module(f"cni_v6.ctl.{module}").register(commands)
    return _command(parser, (), "")


def _command(parser: argparse.ArgumentParser, words: tuple[str, ...], words_of_help: str) -> Command:
    arguments, commands = [], []
    for action in parser._actions:  # noqa: SLF001 (argparse has no other way to its arguments)
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            commands += [_command(below, (*words, name), helps.get(name, "")) for name, below in action.choices.items()]
        else:
            arguments.append(_argument(action, parser))
    return Command(words, words_of_help, tuple(arguments), tuple(commands))


def _argument(action: argparse.Action, parser: argparse.ArgumentParser) -> Argument:
    takes = action.nargs != 0
    choices = tuple(map(str, action.choices or ()))
    metavar = action.metavar if isinstance(action.metavar, str) else action.dest
    words = (action.help or "") % {**vars(action), "prog": parser.prog}
    return Argument(
        tuple(action.option_strings), ("{" + ",".join(choices) + "}" if choices else metavar) if takes else "", choices,
        words, _kind(metavar) if takes else NOTHING, action.nargs in ("*", "+"),
        action.required and action.nargs not in ("?", "*"),
    )


def _kind(metavar: str) -> str:
    names: Sequence[str] = metavar.split("|")
    return FILE if "FILE" in names else FOLDER if "DIR" in names else NOTHING
