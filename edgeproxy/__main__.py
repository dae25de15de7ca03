"""The ``edgeproxy`` command."""

from __future__ import annotations

import argparse
import sys

from edgeproxy import __version__
from edgeproxy.cli import check, demo, explain, purge, serve, stats

COMMANDS = (serve, check, explain, purge, stats, demo)


def main(argv: list[str] | None = None) -> int:
    """Run one command. 0: done; 1: it did not work; 2: it was called wrongly."""
    parser = argparse.ArgumentParser(
        prog="edgeproxy", description="A reverse caching proxy: rule files, two cache tiers, every miss forwarded once."
    )
    parser.add_argument("--version", action="version", version=f"edgeproxy {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_parser(subparsers)
    args = parser.parse_args(argv)
    return int(args.run(args))


if __name__ == "__main__":
    sys.exit(main())
