"""``edgeproxy completion``: a script that has a shell complete commands, flags, files and words.

Rules of this file: the script is made of the command line's own parser, by shtab, and starts no Python when
keys are pressed. What a flag takes is read off its metavar, the same that --help shows.
"""

from __future__ import annotations

import argparse
import re
from typing import Any

_NAME = "completion"
_FILES = frozenset({"FILE", "LIST", "FILE|-|off", "ACCESSLOG", "DIR|FILE"})
_DIRECTORIES = frozenset({"DIR", "DIR|none", "OLD", "NEW"})
_WORDS = re.compile(r"[a-z]+(\|[a-z]+)+")
_WHERE = {
    "bash": "~/.local/share/bash-completion/completions/edgeproxy",
    "zsh": "a directory of $fpath, as _edgeproxy",
    "fish": "~/.config/fish/completions/edgeproxy.fish",
}


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        _NAME,
        help="a script for the shell's completion",
        description="Print a script that has the shell complete edgeproxy's commands and flags.",
        epilog="Where it goes: " + "; ".join(f"{shell}: {where}" for shell, where in _WHERE.items()) + ".",
    )
    parser.add_argument("shell", choices=sorted(_WHERE))


def complete(parser: argparse.ArgumentParser) -> None:
    """``parser`` is the whole command line, of which this command is a part."""

    def run(args: argparse.Namespace) -> int:
        import shtab  # noqa: PLC0415 - what only this command needs

        _annotate(parser, shtab)
        print(shtab.complete(parser, args.shell))
        return 0

    for action in parser._actions:  # noqa: SLF001 - argparse has no other way to walk it, and shtab goes it too
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            action.choices[_NAME].set_defaults(run=run)


def _annotate(parser: argparse.ArgumentParser, shtab: Any) -> None:
    """Say of each flag what may follow it."""
    for action in parser._actions:  # noqa: SLF001 - as above
        metavar = action.metavar
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for each in action.choices.values():
                _annotate(each, shtab)
        elif isinstance(metavar, str) and metavar in _FILES:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        elif isinstance(metavar, str) and metavar in _DIRECTORIES:
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
        elif isinstance(metavar, str) and _WORDS.fullmatch(metavar) and action.choices is None:
            action.choices = metavar.split("|")
