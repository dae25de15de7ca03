"""``edgeproxy savings`` and ``edgeproxy doctor``: what rules have earned, and what to change in them.

Rules of this file: flags in, one call, text out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgeproxy.cli import client

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

_COLUMNS = (
    "rule", "requests", "passed", "hits", "hit ratio", "origin time saved", "from cache", "nothing new",
    "unread",
)  # fmt: skip


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    savings = subparsers.add_parser(
        "savings",
        help="what each rule has earned, and the ttl that its traffic suggests",
        description="What each rule has saved since the start, how often a look at the origin after the ttl "
        "found nothing new, and how much of a sample expired unread. Where there is evidence enough, the ttl "
        f"that keeps answers that are out of date under 5 %. {client.HIT_RATIO}",
        epilog="Exit codes: 0 told, 1 no answer, 2 wrong usage.",
    )
    doctor = subparsers.add_parser(
        "doctor",
        help="find what splits the cache without changing the answers",
        description="Query parameters, fields and cookies that tell stored answers apart though the bodies "
        "are the same, as live traffic shows: pairs of answers that differ in nothing else, stored within "
        "half a minute. What made a difference once is not named. Prints the line to add to the rule.",
        epilog="Exit codes: 0 nothing found, 1 something found or no answer, 2 wrong usage.",
    )
    work: tuple[tuple[argparse.ArgumentParser, Callable[[argparse.Namespace], int]], ...]
    work = ((savings, _savings), (doctor, _doctor))
    for parser, run in work:
        parser.add_argument("--json", action="store_true", help="everything, as JSON")
        client.add_flags(parser)
        parser.set_defaults(run=lambda args, run=run: client.guarded(lambda: run(args)))


def _savings(args: argparse.Namespace) -> int:
    told = _read(args, "/api/savings", "rules")
    if told is None:
        return 0
    rules: dict[str, Any] = told["rules"]
    busy = sorted(rules.items(), key=lambda item: -item[1]["saved_seconds"])
    rows = [_COLUMNS, *(_row(name, row) for name, row in busy)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_COLUMNS))]
    for row in rows:
        name, *numbers = row
        cells = [name.ljust(widths[0])]
        cells += [text.rjust(width) for text, width in zip(numbers, widths[1:], strict=True)]
        print(client.printable("  ".join(cells).rstrip()))
    for name, row in busy:
        for each in row["suggestions"]:
            change = f"{each['was']} -> {each['line'].removeprefix('ttl: ')}: " if each["line"] else ""
            print(client.printable(f"{name} ({row['at']}): {change}{each['why']}"))
    return 0


def _row(name: str, row: dict[str, Any]) -> tuple[str, ...]:
    looks, watched = row.get("looks", 0), row.get("read", 0) + row.get("unread", 0)
    return (
        name,
        f"{row['requests']:,}",
        f"{passes:,}" if (passes := row.get("passes")) is not None else "-",
        f"{row['hits']:,}",
        f"{ratio:.1%}" if (ratio := row.get("hit_ratio")) is not None else "-",
        f"{row['saved_seconds']:,.1f} s",
        client.octets(row["saved_bytes"]),
        f"{looks - row['changed']:,} of {looks:,}" if looks else "-",
        f"{row['unread']:,} of {watched:,}" if watched else "-",
    )


def _doctor(args: argparse.Namespace) -> int:
    told = _read(args, "/api/doctor", "findings")
    if told is None:
        return 0
    findings: list[dict[str, Any]] = told["findings"]
    for each in findings:
        rule = each["rule"]
        pairs = ", ".join(f"{name} ({n} pairs)" for name, n in each["pairs"].items())
        lines = (
            f"{rule['name']} ({rule['at']}): {_WHAT[each['kind']]} that made no difference: {pairs}",
            f"  {each['line']}",
        )
        for line in lines:
            print(client.printable(line))
    if not findings:
        print("nothing found that splits the cache for nothing (as far as traffic has shown since the start)")
    return 1 if findings else 0


_WHAT = {
    "query": "query parameters",
    "header": "headers in the key",
    "cookie": "cookies in the key",
    "vary": "fields that answers vary on",
}


def _read(args: argparse.Namespace, path: str, key: str) -> dict[str, Any] | None:
    """None where it has been printed as JSON."""
    import json  # noqa: PLC0415 - what only a call needs

    tokens = ("EDGEPROXY_READ_TOKEN", "EDGEPROXY_ADMIN_TOKEN")
    told = client.call(args, "GET", path, tokens=tokens).body
    if not isinstance(told, dict) or key not in told:
        raise client.Failed("the answer is not what edgeproxy says of its rules")
    if args.json:
        print(json.dumps(told, indent=2))
        return None
    return told
