"""``edgeproxy check``: read rule files as ``serve`` would, run their examples, say what is wrong or odd.

Rules of this file: flags in, one list of findings, text, JSON or SARIF out. Files are named as they
were typed, with their directory, so that editors and CI find them from where the command was run.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from edgeproxy import settings
from edgeproxy.cli import client

if TYPE_CHECKING:
    import argparse

    from edgeproxy.rules.lint import Finding
    from edgeproxy.rules.model import RuleSet


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "check",
        help="check rule files and run their examples",
        description="Read rule files as serve would and run the examples in them. Then look for rules that "
        "are never reached, for rules that overlap and decide otherwise, for methods that are not "
        "registered, for keys without a host in rules for any, and, with --log or --admin, for rules that "
        "share what was for one client. What is said of the rules alone is proven. Exit 0: all "
        "good, or warnings only; 1: refused, each problem with file:line (with --strict also on warnings); "
        "2: wrong usage.",
    )
    parser.add_argument(
        "directory", nargs="?", metavar="DIR|FILE",
        help="a directory of rule files, or one file as if it were alone; default: the shipped rules",
    )  # fmt: skip
    parser.add_argument(
        "--format", choices=("text", "json", "sarif"), default="text",
        help="how to print the result; sarif is what code hosts show beside the lines",
    )  # fmt: skip
    parser.add_argument("--strict", action="store_true", help="exit 1 on warnings too")
    parser.add_argument("--log", metavar="FILE", help="an access log of edgeproxy (- is standard input)")
    parser.add_argument("--schema", action="store_true", help="print the JSON Schema of rule files and end")
    client.add_flags(parser, unasked=True)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    return client.guarded(lambda: _check(args))


def _check(args: argparse.Namespace) -> int:
    from edgeproxy.rules.load import load_rules  # noqa: PLC0415 - what only this command needs
    from edgeproxy.rules.problems import RuleError  # noqa: PLC0415
    from edgeproxy.rules.schema import schema_text  # noqa: PLC0415

    if args.schema:
        print(schema_text(), end="")
        return 0
    directory = Path(args.directory) if args.directory else settings.shipped_rules()
    if not (directory.is_dir() or directory.is_file()):
        missing = "" if directory.exists() else "there is no such file; "
        raise client.Usage(f"{str(directory)!r}: {missing}expected a directory of rule files, or one of them")
    try:
        ruleset = load_rules(directory, paths=True)
    except RuleError as error:
        _refused(args.format, directory, error)
        return 1
    from edgeproxy.rules.lint import WARNINGS, lint  # noqa: PLC0415

    findings = [*lint(ruleset), *_evidence(args, ruleset)]
    warnings = sum(each.kind in WARNINGS for each in findings)
    _show(args.format, directory, ruleset, findings, warnings)
    return 1 if args.strict and warnings else 0


def _evidence(args: argparse.Namespace, ruleset: RuleSet) -> list[Finding]:
    """What was seen of requests, where one is told where to look. Raises client.Usage and client.Failed."""
    from edgeproxy.cli.logged import Log  # noqa: PLC0415 - what only these flags need
    from edgeproxy.observe.access_log import MASK  # noqa: PLC0415
    from edgeproxy.rules.suspicious import seen_live, suspicious  # noqa: PLC0415

    findings: list[Finding] = []
    if args.log is not None:
        try:
            findings += suspicious(ruleset, Log(args.log), MASK)
        except settings.SettingsError as error:
            raise client.Usage(str(error)) from None
    if args.admin is not None:
        tokens = ("EDGEPROXY_READ_TOKEN", "EDGEPROXY_ADMIN_TOKEN")
        told = client.call(args, "GET", "/api/savings", tokens=tokens).body
        rules = told.get("rules") if isinstance(told, dict) else None
        if not isinstance(rules, dict):
            raise client.Failed("the answer is not what edgeproxy says of its savings")
        counts = {name: int(row.get("authorized", 0)) for name, row in rules.items()}
        findings += seen_live(ruleset, {name: n for name, n in counts.items() if n})
    return findings


def _refused(form: str, directory: Path, error: Exception) -> None:
    import json  # noqa: PLC0415 - what only this case needs

    from edgeproxy.rules.pool_keys import NO_POOL  # noqa: PLC0415
    from edgeproxy.rules.problems import RuleError  # noqa: PLC0415

    assert isinstance(error, RuleError)  # noqa: S101
    if form == "text":
        print(error, file=sys.stderr)
        if directory.is_file() and any(NO_POOL in each.message for each in error.problems):
            print(f"pools of other files are known to: edgeproxy check {directory.parent}", file=sys.stderr)
    elif form == "sarif":
        from edgeproxy.cli.sarif import sarif  # noqa: PLC0415

        print(sarif(directory, error.problems, ()))
    else:
        problems = [
            {"file": p.file, "line": p.line, "column": p.column, "key": p.key, "message": p.message}
            for p in error.problems
        ]
        print(json.dumps({"ok": False, "problems": problems}, indent=2))


def _show(form: str, directory: Path, ruleset: RuleSet, findings: list[Finding], warnings: int) -> None:
    import json  # noqa: PLC0415 - what only this case needs

    examples = sum(len(rule.examples) for rule in ruleset.rules)
    if form == "sarif":
        from edgeproxy.cli.sarif import sarif  # noqa: PLC0415

        print(sarif(directory, (), findings))
    elif form == "json":
        told = {
            "ok": True, "rules": len(ruleset.rules), "examples": examples, "problems": [],
            "findings": [
                {
                    "kind": each.kind.value, "rule": each.rule, "at": each.at, "message": each.message,
                    "others": [{"name": name, "at": at} for name, at in each.others],
                }
                for each in findings
            ],
        }  # fmt: skip
        print(json.dumps(told, indent=2))
    else:
        for each in findings:
            print(client.printable(str(each)))
        notes = len(findings) - warnings
        counts = [_some(warnings, "warning")] * bool(warnings) + [_some(notes, "note")] * bool(notes)
        result = ", ".join(counts) or "all good"
        print(f"{directory}: {_some(len(ruleset.rules), 'rule')}, {_some(examples, 'example')}, {result}")


def _some(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
