"""``edgeproxy reload``: have a running edgeproxy read its rule files again, or replace its workers.

Rules of this file: flags in, one call, text out.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from edgeproxy.cli import client
from edgeproxy.cli.rules import caller

PATIENCE = 3600.0
"""Seconds: each worker drains, and each new one starts."""

if TYPE_CHECKING:
    import argparse


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "reload",
        help="have the rule files read again",
        description="Have a running edgeproxy read its rule files again. Rules that are wrong are refused, "
        "each problem with file:line, and those loaded before go on.",
        epilog="Exit codes: 0 done, 1 refused, 2 wrong usage.",
    )
    parser.add_argument(
        "--workers",
        action="store_true",
        help="also replace the workers, one at a time, with the code and the --config file as they are now; "
        "no connection is refused or cut meanwhile. One that does not start ends it, and the old ones go on",
    )
    client.add_flags(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    return client.guarded(lambda: _replace(args) if args.workers else _reload(args))


def _reload(args: argparse.Namespace) -> int:
    answer = client.call(args, "POST", "/api/rules/reload", {"by": caller()}, accept=(200, 422, 503))
    told = answer.body
    if not isinstance(told, dict) or (answer.status == 200 and "version" not in told):
        raise client.Failed("the answer is not what edgeproxy says of a reload")
    if answer.status == 200:
        print(
            client.printable(f"rules version {told['version']}, {client.counted(told.get('rules'), 'rule')}")
        )
        if told.get("held"):
            print(client.printable(str(told["held"])))
        return 0
    for line in told.get("errors") or ():
        print(client.printable(str(line)), file=sys.stderr)
    raise client.Failed(str(told.get("detail") or f"refused ({answer.status})"))


def _replace(args: argparse.Namespace) -> int:
    told = client.call(args, "POST", "/api/workers/replace", patience=PATIENCE).body
    if not isinstance(told, dict) or "replaced" not in told:
        raise client.Failed("the answer is not what edgeproxy says of a replacement")
    print(f"{client.counted(told['replaced'], 'worker')} replaced")
    return 0
