"""``cni-v6ctl completion``: the completion of this command line for bash, zsh and fish, read off the parser."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cni_v6.ctl.command_tree import Argument, Command


def register(commands: Any) -> None:
    parser = commands.add_parser("completion", help="print the completion of this command for a shell")
    parser.add_argument("shell", choices=tuple(SHELLS), help="bash, zsh or fish")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    from cni_v6.ctl.command_tree import tree  # it imports all commands

    print("\n".join(SHELLS[chosen.shell](tree())))
    return 0


# bash

_BASH = """# Completion of cni-v6ctl for bash. It goes to /usr/share/bash-completion/completions/cni-v6ctl.
_cni_v6ctl() {
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]} command= words= kind= at
    COMPREPLY=()
    for ((at = 1; at < COMP_CWORD; at++)); do
        case "$command ${COMP_WORDS[at]}" in
            COMMANDS) command="$command ${COMP_WORDS[at]}" ;;
        esac
    done
    case "$command $previous" in
VALUES
        *)
            case "$command" in
WORDS
            esac
            [[ $current == -* ]] && kind=
            ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
    if [[ $kind ]]; then
        local found
        mapfile -t found < <(compgen "$kind" -- "$current")
        COMPREPLY+=("${found[@]}")
        compopt -o filenames 2>/dev/null
    fi
}
complete -F _cni_v6ctl cni-v6ctl"""
_BASH_KIND = {"": "", "file": "-f", "folder": "-d"}


def _bash(root: Command) -> Iterator[str]:
    commands = list(root.all())
    known = "|".join(_quoted(f" {' '.join(command.words)}") for command in commands if command.words)
    values = [
        f"        {'|'.join(_quoted(f'{_prefix(command)} {flag}') for flag in option.flags)}) "
        f"words={_quoted(' '.join(option.choices))} kind={_quoted(_BASH_KIND[option.kind])} ;;"
        for command in commands for option in command.options if option.value
    ]
    words = [
        f"                {_quoted(_prefix(command))}) words={_quoted(' '.join(_words(command)))} "
        f"kind={_quoted(_BASH_KIND[_kind(command)])} ;;" for command in commands
    ]
    for line in _BASH.splitlines():
        if line in ("VALUES", "WORDS"):
            yield from values if line == "VALUES" else words
        else:
            yield line.replace("COMMANDS)", f"{known})")


def _prefix(command: Command) -> str:
    return "".join(f" {word}" for word in command.words)


def _words(command: Command) -> Iterator[str]:
    """What can come next, but for values that nobody knows."""
    yield from (below.words[-1] for below in command.commands)
    for place in command.places:
        yield from place.choices
    for option in command.options:
        yield from option.flags


def _kind(command: Command) -> str:
    return next((place.kind for place in command.places if place.kind), "")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


# zsh


def _zsh(root: Command) -> Iterator[str]:
    yield "#compdef cni-v6ctl"
    yield "# Completion of cni-v6ctl for zsh. It goes to a folder of $fpath, as _cni-v6ctl."
    for command in root.all():
        yield ""
        yield f"{_function(command)}() {{"
        yield from (f"    {line}" for line in (_zsh_group(command) if command.commands else _zsh_arguments(command)))
        yield "}"
    yield ""
    yield 'if [[ $funcstack[1] == _cni-v6ctl ]]; then _cni-v6ctl "$@"; else compdef _cni-v6ctl cni-v6ctl; fi'


def _function(command: Command) -> str:
    return "_".join(("_cni-v6ctl", *command.words))


def _zsh_arguments(command: Command) -> Iterator[str]:
    yield "_arguments \\"
    specs = [*map(_zsh_option, command.options), *map(_zsh_place, command.places)]
    yield from (f"    {spec}{' ' + chr(92) if at < len(specs) else ''}" for at, spec in enumerate(specs, 1))


def _zsh_group(command: Command) -> Iterator[str]:
    yield "local state line"
    yield "local -a commands=("
    for below in command.commands:
        yield f"    {_quoted(f'{below.words[-1]}:{below.help}')}"
    yield ")"
    yield f"_arguments -C {' '.join(map(_zsh_option, command.options))} '1: :->command' '*:: :->rest'"
    yield "case $state in"
    yield "    command) _describe command commands ;;"
    yield f"    rest) (( $+functions[{_function(command)}_$line[1]] )) && {_function(command)}_$line[1] ;;"
    yield "esac"


def _zsh_option(option: Argument) -> str:
    value = f":{option.value.replace(':', ' ')}:{_zsh_action(option)}" if option.value else ""
    described = f"[{_zsh_text(option.help)}]{value}"
    if len(option.flags) == 1:
        return _quoted(option.flags[0] + described)
    return f"'({' '.join(option.flags)})'{{{','.join(option.flags)}}}{_quoted(described)}"


def _zsh_place(place: Argument) -> str:
    many = "*" if place.repeated else "" if place.required else ":"
    return _quoted(f"{many}:{place.value.replace(':', ' ')}:{_zsh_action(place)}")


def _zsh_action(argument: Argument) -> str:
    if argument.choices:
        return f"({' '.join(argument.choices)})"
    return {"": " ", "file": "_files", "folder": "_files -/"}[argument.kind]


def _zsh_text(text: str) -> str:
    return "".join(f"\\{letter}" if letter in "[]\\:" else letter for letter in text)


# fish


def _fish(root: Command) -> Iterator[str]:
    yield "# Completion of cni-v6ctl for fish. It goes to /usr/share/fish/vendor_completions.d/cni-v6ctl.fish."
    yield "complete -c cni-v6ctl -f"
    for command in root.all():
        when = _fish_condition(command)
        for below in command.commands:
            yield f"complete -c cni-v6ctl -n {when} -a {below.words[-1]} -d {_fish_quoted(below.help)}"
        for place in command.places:
            yield from (f"complete -c cni-v6ctl -n {when} -a {_fish_quoted(choice)}" for choice in place.choices)
        if _kind(command):
            yield f"complete -c cni-v6ctl -n {when} -F"
        for option in command.options:
            flags = " ".join(f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}" for flag in option.flags)
            yield f"complete -c cni-v6ctl -n {when} {flags}{_fish_value(option)} -d {_fish_quoted(option.help)}"


def _fish_condition(command: Command) -> str:
    """Behind the words of a command, and of none below it."""
    if not command.words:
        return "__fish_use_subcommand"
    seen = [f"__fish_seen_subcommand_from {word}" for word in command.words]
    if command.commands:
        seen.append(f"not __fish_seen_subcommand_from {' '.join(below.words[-1] for below in command.commands)}")
    return _fish_quoted("; and ".join(seen))


def _fish_value(option: Argument) -> str:
    if option.choices:
        return f" -x -a {_fish_quoted(' '.join(option.choices))}"
    kinds = {"": " -x", "file": " -r -F", "folder": " -x -a '(__fish_complete_directories)'"}
    return kinds[option.kind] if option.value else ""


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


SHELLS: Mapping[str, Callable[[Command], Iterator[str]]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}
