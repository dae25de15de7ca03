"""``edgeproxy check``: read rule files as ``serve`` would, run their examples, say what is wrong."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from edgeproxy import settings

if TYPE_CHECKING:
    import argparse


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "check",
        help="check rule files and run their examples",
        description="Read rule files as serve would and run the examples in them. "
        "Exit 0: all good; 1: refused, each problem with file:line; 2: wrong usage.",
    )
    parser.add_argument("directory", nargs="?", metavar="DIR", help="rule files; default: the shipped rules")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="how to print the result")
    parser.add_argument("--schema", action="store_true", help="print the JSON Schema of rule files and end")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    import json  # noqa: PLC0415 - what only this command needs

    from edgeproxy.rules.load import load_rules  # noqa: PLC0415
    from edgeproxy.rules.problems import RuleError  # noqa: PLC0415
    from edgeproxy.rules.schema import schema_text  # noqa: PLC0415

    if args.schema:
        print(schema_text(), end="")
        return 0
    directory = Path(args.directory) if args.directory else settings.shipped_rules()
    if not directory.is_dir():
        print(f"edgeproxy: {str(directory)!r}: expected a directory of rule files", file=sys.stderr)
        return 2
    as_json = args.format == "json"
    try:
        ruleset = load_rules(directory)
    except RuleError as error:
        if as_json:
            problems = [
                {"file": p.file, "line": p.line, "column": p.column, "key": p.key, "message": p.message}
                for p in error.problems
            ]
            print(json.dumps({"ok": False, "problems": problems}, indent=2))
        else:
            print(error, file=sys.stderr)
        return 1
    examples = sum(len(rule.examples) for rule in ruleset.rules)
    if as_json:
        told = {"ok": True, "rules": len(ruleset.rules), "examples": examples, "problems": []}
        print(json.dumps(told, indent=2))
    else:
        print(f"{directory}: {_some(len(ruleset.rules), 'rule')}, {_some(examples, 'example')}, all good")
    return 0


def _some(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
