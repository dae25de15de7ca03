"""The ``edgeproxy`` command."""

from __future__ import annotations

import argparse
import os
import re
import sys
from typing import Any, NoReturn

from edgeproxy import __version__
from edgeproxy.cli import (
    alerts,
    baseline,
    check,
    completion,
    demo,
    diff,
    explain,
    init,
    purge,
    reload,
    replay,
    rules,
    savings,
    serve,
    stats,
    store,
    top,
    warm,
)

COMMANDS = (
    serve,
    init,
    check,
    explain,
    diff,
    replay,
    purge,
    warm,
    reload,
    rules,
    stats,
    alerts,
    baseline,
    savings,
    top,
    store,
    demo,
    completion,
)
"""Each imports what it works with when it runs: --help and --version are there at once."""


class Parser(argparse.ArgumentParser):
    """What is wrong is one line. Flags are written out: a beginning that fits today means another flag
    tomorrow, and ``--admin-token SECRET`` must not be taken for ``--admin-token-file``."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **options})
        self._given: list[str] = []

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """What is left over is told by the command that was given it: it knows the flags that are near."""
        self._given = list(sys.argv[1:] if args is None else args)
        read, left_over = super().parse_known_args(self._given, namespace)
        if left_over:
            self.error(f"{_LEFT_OVER}: {' '.join(left_over)}")
        return read, left_over

    def error(self, message: str) -> NoReturn:
        meant, unknown = self._meant()
        if not meant:
            self.exit(2, f"{self.prog}: {message}; see '{self.prog} --help'\n")
        if not message.startswith(_LEFT_OVER):  # that something is missing may follow from the misspelling
            message = f"{_LEFT_OVER}: {' '.join(meant)}"
        if len(meant) == unknown:
            hints = list(dict.fromkeys(meant.values()))
        else:
            hints = [f"{known} for {given}" for given, known in meant.items()]
        self.exit(2, f"{self.prog}: {message}; did you mean {', '.join(hints)}?\n")

    def _meant(self) -> tuple[dict[str, str], int]:
        """Of the flags that were given and do not exist, those that are near one that does; and how many do
        not exist."""
        import difflib  # noqa: PLC0415 - for a mistake alone

        flags = self._option_string_actions
        known = {flag[2:]: flag for flag in flags if flag.startswith("--")}
        found: dict[str, str] = {}
        unknown: set[str] = set()
        for word in self._given:
            if word == "--" or (self._subparsers is not None and not word.startswith("-")):
                break  # what follows is no flag, or another parser's
            flag = _FLAG.match(word)
            if flag is None or flag[0] in flags or word[:2] in flags:
                continue
            name = flag[1].lower().replace("_", "-")
            unknown.add(flag[0])
            close = difflib.get_close_matches(name, known, n=2, cutoff=0.66)  # tga: tag
            # Every command has --help: what is not almost it is likelier to be a flag that is not there.
            near = [each for each in close if each != "help" or name[:3] == "hel" or name == "hlep"]
            near = near or sorted(each for each in known if len(name) > 1 and each.startswith(name))
            if near:
                found[flag[0]] = known[near[0]]
        return found, len(unknown)


_LEFT_OVER = "unrecognized arguments"
_FLAG = re.compile(r"--?([A-Za-z][\w-]+)(?=$|=)", re.ASCII)


def make_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = Parser(
        prog="edgeproxy",
        description="A reverse caching proxy: rule files, two cache tiers, every miss forwarded once.",
        epilog="'edgeproxy COMMAND --help' tells the flags of each.",
    )
    parser.add_argument("--version", action="version", version=f"edgeproxy {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND")
    for command in COMMANDS:
        command.add_parser(subparsers)
    completion.complete(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one command. 0: done; 1: it did not work; 2: it was called wrongly; 130: Ctrl-C."""
    parser = make_parser()
    args = parser.parse_args(argv)
    if not hasattr(args, "run"):
        parser.print_help(sys.stderr)
        return 2
    try:
        status = int(args.run(args))
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has had enough; at exit Python must not try again to write the rest.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


if __name__ == "__main__":
    sys.exit(main())
