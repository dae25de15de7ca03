"""The ``edgeproxy`` command."""

from __future__ import annotations

import argparse
import os
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

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see '{self.prog} --help'\n")


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
