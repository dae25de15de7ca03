"""``edgeproxy rules``: the versions that the rules had, the way back, and rules tried on live traffic.

Rules of this file: flags in, one call, text out.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeproxy.cli import client

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

_EPILOG = "Exit codes: 0 done, 1 refused or no answer, 2 wrong usage."


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "rules",
        help="their versions, the way back, and new ones tried on live traffic",
        description="The life of the rules of a running edgeproxy. Whatever changes, changes in all its "
        "workers, or in none. Versions, what was brought back and what is tried survive a restart.",
        epilog=_EPILOG,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _command(
        commands,
        "history",
        _history,
        "the versions that were in force",
        "The versions of the rules that were in force, a line for each: number, since when, how it came, "
        "who, how many rules, digest.",
    )
    rollback = _command(
        commands,
        "rollback",
        _rollback,
        "bring a version back",
        "Bring a version back: the one before the present, or the one named. It holds until the rule files "
        "are edited; reading the same files again changes nothing. Where rules are tried (shadow, promote), "
        "that is ended instead.",
    )
    rollback.add_argument(
        "to", nargs="?", default="", metavar="VERSION", help="a number, or how its digest begins"
    )
    shadow = _command(
        commands,
        "shadow",
        _shadow,
        "compare other rules on live traffic, without effect",
        "Try other rules on live traffic, without effect. With DIR: compare these rules with those in force "
        "for one request in so many (the files are sent, so they need not be on that machine). Without: what "
        "has been found so far.",
    )
    shadow.add_argument("directory", nargs="?", metavar="DIR", help="rule files")
    shadow.add_argument(
        "--sample",
        type=int,
        metavar="N",
        help="compare one request in N (default 10); these are not answered by the hit lane",
    )
    shadow.add_argument("--json", action="store_true", help="what has been found, as JSON")
    promote = _command(
        commands,
        "promote",
        _promote,
        "answer a share of the keys by the rules that are tried",
        "Answer this percentage of the keys by the rules that are tried (rules shadow DIR). A key stays on "
        "its side; with 100 they are in force, until the rule files are edited.",
    )
    promote.add_argument("percent", type=float, metavar="PERCENT", help="0 to 100")


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    work: Callable[[argparse.Namespace], int],
    short: str,
    long: str,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=short, description=long, epilog=_EPILOG)
    client.add_flags(parser)
    parser.set_defaults(run=lambda args: client.guarded(lambda: work(args)))
    return parser


def _history(args: argparse.Namespace) -> int:
    told = _read(args, "/api/rules/history")
    versions = told.get("versions")
    if not isinstance(versions, list):
        raise client.Failed("the answer is not what edgeproxy says of its rules")
    rows = [
        [
            str(v["number"]), datetime.fromtimestamp(v["at"], UTC).strftime("%Y-%m-%d %H:%M:%SZ"), v["how"],
            v["by"] or "-", client.counted(v["rules"], "rule"), v["version"],
            "in force" if v.get("in_force", v is versions[-1]) else "",
        ]
        for v in versions
    ]  # fmt: skip
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(7)]
    for row in rows:
        line = "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True))
        print(client.printable(line.rstrip()))
    held, candidate = told.get("held"), told.get("candidate")
    if held:
        print(
            client.printable(
                f"{held['version']} holds until the rule files are edited ({held['instead_of']})"
            )
        )
    if candidate:
        print(client.printable(f"{candidate['version']} is tried: {_share(candidate)}"))
    return 0


def _rollback(args: argparse.Namespace) -> int:
    return _change(args, "POST", "/api/rules/rollback", {"to": args.to})


def _shadow(args: argparse.Namespace) -> int:
    if args.directory is None:
        if args.sample is not None:
            raise client.Usage("--sample: expected DIR, the rules to compare")
        return _found(args)
    from edgeproxy.rules.load import read_files  # noqa: PLC0415 - what only this call needs
    from edgeproxy.rules.problems import RuleError  # noqa: PLC0415

    try:
        files = {name: octets.decode() for name, octets in read_files(Path(args.directory))}
    except RuleError as error:
        raise client.Usage(str(error)) from None
    except UnicodeDecodeError:
        raise client.Usage(f"{args.directory}: expected rule files in UTF-8") from None
    body: dict[str, object] = {"files": files}
    if args.sample is not None:
        if args.sample < 1:
            raise client.Usage(f"--sample: {args.sample}: expected a whole number, 1 or more")
        body["sample"] = args.sample
    return _change(args, "PUT", "/api/rules/shadow", body)


def _promote(args: argparse.Namespace) -> int:
    if not 0 <= args.percent <= 100:
        raise client.Usage(f"{args.percent:g}: expected 0 to 100")
    return _change(args, "POST", "/api/rules/promote", {"percent": args.percent})


def _found(args: argparse.Namespace) -> int:
    import json  # noqa: PLC0415 - what only this call needs

    told = _read(args, "/api/rules/shadow")
    if args.json:
        print(json.dumps(told, indent=2))
        return 0
    candidate, pairs = told.get("candidate"), told.get("pairs")
    if not isinstance(candidate, dict) or not isinstance(pairs, list):
        raise client.Failed("the answer is not what edgeproxy says of rules that are tried")
    seen = f"{client.counted(told['compared'], 'request')} compared (one in {candidate['sample']})"
    lines = [
        f"{candidate['version']}: {_share(candidate)}",
        f"{seen}, {told['differing']} decided otherwise",
    ]
    for pair in pairs:
        old, new = pair["old"], pair["new"]
        lines.append(
            f"{old['name']} ({old['at']}) -> {new['name']} ({new['at']}): "
            f"{client.counted(pair['requests'], 'request')}"
        )
        lines += [f"  {c['field']}: {c['old']} -> {c['new']}   ({c['requests']})" for c in pair["changes"]]
        lines += [f"    {sample}" for sample in pair["samples"]]
    for line in lines:
        print(client.printable(line))
    return 0


def _share(candidate: dict[str, Any]) -> str:
    percent = candidate["percent"]
    return f"answers for {percent:g} % of the keys" if percent else "a shadow, without effect"


def _read(args: argparse.Namespace, path: str) -> dict[str, Any]:
    tokens = ("EDGEPROXY_READ_TOKEN", "EDGEPROXY_ADMIN_TOKEN")
    told = client.call(args, "GET", path, tokens=tokens).body
    if not isinstance(told, dict):
        raise client.Failed("the answer is not what edgeproxy says of its rules")
    return told


def _change(args: argparse.Namespace, method: str, path: str, body: dict[str, object]) -> int:
    answer = client.call(args, method, path, {**body, "by": caller()}, accept=(200, 422, 503))
    told = answer.body
    if not isinstance(told, dict) or (answer.status == 200 and "version" not in told):
        raise client.Failed("the answer is not what edgeproxy says of its rules")
    if answer.status == 200:
        what = f"rules version {told['version']}, {client.counted(told.get('rules'), 'rule')}"
        tried = told.get("candidate")
        print(client.printable(f"{what}; {tried['version']}: {_share(tried)}" if tried else what))
        return 0
    for line in told.get("errors") or ():
        print(client.printable(str(line)), file=sys.stderr)
    raise client.Failed(str(told.get("detail") or f"refused ({answer.status})"))


def caller() -> str:
    """Who calls, for the history: ``user@host``, as far as that is known."""
    import getpass  # noqa: PLC0415 - what only a change needs
    import socket  # noqa: PLC0415

    try:
        user = getpass.getuser()
    except (OSError, KeyError):
        user = ""
    return f"{user}@{socket.gethostname()}"[:200]
