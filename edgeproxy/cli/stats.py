"""``edgeproxy stats``: what a running edgeproxy has counted, as a table or as JSON.

Rules of this file: flags in, one call, text out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgeproxy.cli import client

if TYPE_CHECKING:
    import argparse

_COLUMNS = ("rule", "requests", "passed", "hits", "hit ratio", "sent", "origin time saved")
_GROUPS = (
    ("l1_", "memory (L1)"),
    ("l2_store_", "what the shared store says"),
    ("l2_", "shared store (L2)"),
    ("", "store"),
)
"""Beginnings of the names of the store's numbers, and the line that each stands in."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "stats",
        help="hit ratio and savings of each rule",
        description=f"What a running edgeproxy has counted since it started. {client.HIT_RATIO}",
        epilog="Exit codes: 0 told, 1 no answer, 2 wrong usage.",
    )
    parser.add_argument("--json", action="store_true", help="all numbers, as JSON")
    client.add_flags(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    return client.guarded(lambda: _stats(args))


def _stats(args: argparse.Namespace) -> int:
    import json  # noqa: PLC0415 - what only a call needs

    tokens = ("EDGEPROXY_READ_TOKEN", "EDGEPROXY_ADMIN_TOKEN")
    told = client.call(args, "GET", "/api/cache/stats", tokens=tokens).body
    if not isinstance(told, dict):
        raise client.Failed("the answer is not what edgeproxy's stats look like")
    print(json.dumps(told, indent=2) if args.json else _table(told))
    return 0


def _table(told: dict[str, Any]) -> str:
    """The table: rules with requests, most requests first, then all together."""
    rules: dict[str, Any] = told.get("rules") or {}
    busy = sorted(
        ((name, slot) for name, slot in rules.items() if slot.get("requests")),
        key=lambda item: -item[1]["requests"],
    )
    rows = [_COLUMNS, *(_row(name, slot) for name, slot in busy), _row("all", told)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_COLUMNS))]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    lines.append("")
    lines.append(
        f"up {_duration(told.get('uptime_seconds') or 0)}, {told.get('stored', 0)} stored, "
        f"{told.get('collapsed', 0)} collapsed, {told.get('aborted', 0)} aborted"
    )
    for title in ("not_stored", "passes", "stale_served", "origin_failures"):
        reasons = told.get(title)
        if reasons:
            counts = sorted(reasons.items(), key=lambda item: -item[1])
            lines.append(f"{title.replace('_', ' ')}: " + ", ".join(f"{r} {n}" for r, n in counts))
    lines += _store(told.get("store") or {})
    origin = told.get("origin")
    if origin:
        lines.append("origin: " + ", ".join(f"{key} {_short(key, n)}" for key, n in origin.items()))
    lines += _origins(told.get("origins") or {})
    lines += _workers(told.get("node") or {})
    return "\n".join(client.printable(line).rstrip() for line in lines)


def _origins(pools: dict[str, Any]) -> list[str]:
    """A line for each origin, where there are several or one is not well."""
    rows = [(pool, url, row) for pool, each in pools.items() for url, row in each.items()]
    if len(rows) == 1 and rows[0][2].get("state") == "usable":
        return []
    lines = []
    for pool, url, row in rows:
        why = f" ({row['reason']})" if row.get("reason") else ""
        canary = f", canary {row['canary']}" if row.get("canary") else ""
        counted = ", ".join(
            f"{row.get(key, 0)} {key}" for key in ("requests", "failures", "errors", "retries")
        )
        lines.append(
            f"{pool}: {url}: {row.get('state')}{why}{canary}, {counted}, "
            f"{1000 * row.get('latency_seconds', 0):.1f} ms"
        )
    return lines


def _workers(node: dict[str, Any]) -> list[str]:
    """A line for each worker, where there are several, and one if the last replacement failed."""
    lines = [
        f"worker {each.get('worker')}: {each.get('state')}, pid {each.get('pid')}, "
        f"up {_duration(each.get('up_seconds') or 0)}, generation {each.get('generation')}"
        for each in node.get("each") or ()
    ]
    if node.get("crashes_total"):
        lines.append(f"crashes: {node['crashes_total']}")
    last = (node.get("replacement") or {}).get("last") or {}
    if last.get("why_not"):
        lines.append(f"the last replacement of the workers was given up: {last['why_not']}")
    return lines


def _store(numbers: dict[str, Any]) -> list[str]:
    """A line for each tier, of what is not zero."""
    groups: dict[str, list[str]] = {title: [] for _, title in sorted(_GROUPS, key=lambda g: g[0])}
    for key, number in numbers.items():
        if number in (0, "", "0"):
            continue
        begins, title = next((b, t) for b, t in _GROUPS if key.startswith(b))
        name = key.removeprefix(begins).removesuffix("_total").replace("_", " ")
        if key in ("l2", "l2_name"):
            groups["shared store (L2)"].append(str(number))
        else:
            groups[title].append(f"{name} {_short(key, number)}")
    return [f"{title}: {', '.join(told)}" for title, told in groups.items() if told]


def _row(name: str, slot: dict[str, Any]) -> tuple[str, ...]:
    ratio, results = slot.get("hit_ratio"), slot.get("results") or {}
    return (
        name,
        f"{slot.get('requests', 0):,}",
        f"{results.get('bypass', 0):,}",
        f"{slot.get('hits', 0):,}",
        "-" if ratio is None else f"{ratio:.1%}",
        client.octets(slot.get("bytes_out", 0)),
        _duration(slot.get("origin_seconds_saved", 0)),
    )


def _short(key: str, value: object) -> str:
    if isinstance(value, int | float) and "bytes" in key:
        return client.octets(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _duration(seconds: float) -> str:
    """``93784`` -> ``1 d 2 h``: the two largest units."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, whole = divmod(whole, size)
        if count or parts:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])
