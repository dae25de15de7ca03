"""``edgeproxy reload``: have a running edgeproxy read its rule files again.

Rules of this file: flags in, one call, text out.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from edgeproxy.cli import client
from edgeproxy.cli.rules import caller

if TYPE_CHECKING:
    import argparse


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "reload",
        help="have the rule files read again",
        description="Have a running edgeproxy read its rule files again. Rules that are wrong are refused, "
        "each problem with file:line, and those loaded before go on.",
        epilog="Exit codes: 0 the new rules are in force, 1 refused, 2 wrong usage.",
    )
    client.add_flags(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    return client.guarded(lambda: _reload(args))


def _reload(args: argparse.Namespace) -> int:
    answer = client.call(args, "POST", "/api/rules/reload", {"by": caller()}, accept=(200, 422, 503))
    told = answer.body
    if not isinstance(told, dict) or (answer.status == 200 and "version" not in told):
        raise client.Failed("the answer is not what edgeproxy says of a reload")
    if answer.status == 200:
        print(
            client.printable(f"rules version {told['version']}, {client.counted(told.get('rules'), 'rule')}")
        )
        return 0
    for line in told.get("errors") or ():
        print(client.printable(str(line)), file=sys.stderr)
    raise client.Failed(str(told.get("detail") or f"refused ({answer.status})"))
