"""``edgeproxy init``: writes what it takes to run edgeproxy under systemd, with compose or in Kubernetes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from edgeproxy import settings

if TYPE_CHECKING:
    import argparse


HIDDEN = frozenset({"home", "root", "tmp"})
"""Directories of / that ProtectHome and PrivateTmp keep from a service."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "init",
        help="write files to run it under systemd, with compose or in Kubernetes",
        description="Write what it takes to run edgeproxy, to be read and changed: a config file and rules "
        "to begin with (or your own with --rules); with --systemd, --compose or --kubernetes also what these "
        "want. What is there already is never overwritten, except with --force.",
        epilog="Exit codes: 0 written, 1 refused or not possible, 2 wrong usage.",
    )
    parser.add_argument("directory", metavar="DIR", help="where to; made if it is not there")
    kinds = parser.add_mutually_exclusive_group()
    for name, says in (
        ("systemd", "a hardened service and the socket that clients connect to"),
        ("compose", "edgeproxy with Redis, Prometheus and Grafana"),
        ("kubernetes", "a Deployment with edgeproxy as a sidecar of your API"),
    ):
        kinds.add_argument(f"--{name}", dest="kind", action="store_const", const=name, help=says)
    parser.add_argument("--origin", metavar="URL", help="your API, as edgeproxy reaches it from there")
    parser.add_argument("--rules", metavar="DIR", help="your rule files; default: some to begin with")
    parser.add_argument("--force", action="store_true", help="overwrite what is there")
    parser.set_defaults(run=run, kind="plain")


def run(args: argparse.Namespace) -> int:
    from edgeproxy.rules.problems import RuleError  # noqa: PLC0415 - what only this command needs
    from edgeproxy.templates.write import KINDS, There, from_inside, write  # noqa: PLC0415

    kind = next(each for each in KINDS if each.name == args.kind)
    directory = Path(args.directory)
    try:
        origin = settings.origin_urls(args.origin) if args.origin else ""
        rules = Path(args.rules) if args.rules else None
        written = write(directory, kind, origin=origin, rules=rules, force=args.force)
    except There as there:
        for path in there.paths:
            print(f"edgeproxy: {path} is there already", file=sys.stderr)
        print("edgeproxy: nothing was written; --force overwrites", file=sys.stderr)
        return 1
    except RuleError as error:
        print(f"edgeproxy: the rules are refused:\n{error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"edgeproxy: {error.filename or directory}: {error.strerror}", file=sys.stderr)
        return 1
    except ValueError as error:
        print(f"edgeproxy: --origin: {args.origin!r}: {error}", file=sys.stderr)
        return 2
    for path in written:
        print(path)
    print(f"\n{kind.says[0].upper()}{kind.says[1:]}. Next, in {directory}:")
    for step in kind.steps:
        print(f"  {step}")
    if args.kind == "systemd" and HIDDEN.intersection(Path(sys.executable).parts[1:2]):
        print(
            f"The service would run {Path(sys.executable).parent / 'edgeproxy'}, which ProtectHome=yes and "
            "PrivateTmp=yes hide from it: install edgeproxy elsewhere, such as in /opt/edgeproxy, and change "
            "ExecStart."
        )
    if args.kind == "compose" and origin and (inside := from_inside(origin)) != origin:
        print(f"A container has a loopback of its own: the origin is written as {inside}.")
    return 0
