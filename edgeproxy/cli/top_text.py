"""The live numbers as a screen of text.

Rules of this file: data in (GET /api/live), something that rich can print out. What comes from outside is put
in as plain text, without control characters; nothing is read as markup.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from edgeproxy.cli.client import octets, printable

if TYPE_CHECKING:
    from rich.console import RenderableType

BARS = "▁▂▃▄▅▆▇█"
SPARKS = 60
"""Slots that the line over time has: five minutes."""
TROUBLES = 5
WANTED = 5
LONGEST = 60


def screen(told: dict[str, Any], *, sort: str = "requests", wrong: str = "") -> RenderableType:
    """``wrong``: why the numbers are not the latest, "" where they are."""
    parts: list[RenderableType] = [_head(told, wrong), _totals(told), _over_time(told), Text()]
    parts.append(_rules(told, sort))
    parts += [Text(), _origins(told)]
    if told["troubles"]:
        parts += [Text(), _troubles(told)]
    if told["wanted"]:
        parts += [Text(), _wanted(told)]
    return Group(*parts)


def _head(told: dict[str, Any], wrong: str) -> Text:
    text = Text("edgeproxy ", style="bold")
    text.append(plain(told.get("version", "")), style="dim")
    state = str(told.get("state", ""))
    text.append(f"  {plain(state)}", style="green" if state == "ready" else "yellow")
    node = told.get("node")
    if isinstance(node, dict):
        text.append(f"  {node.get('workers_ready')} of {node.get('workers')} workers")
    text.append(
        f"  up {span(told.get('uptime_seconds'))}  {told.get('connections', 0)} connections", style="dim"
    )
    if wrong:
        text.append(f"\n{wrong}", style="bold red")
    return text


def _totals(told: dict[str, Any]) -> Text:
    row, seconds, store = told["all"], told["window_seconds"], told.get("store") or {}
    text = Text(no_wrap=True, overflow="ellipsis")
    for name, value, style in (
        ("hit ratio", share(row["hit_ratio"]), "bold green"),
        ("requests/s", rate(row["requests"] / seconds), "bold"),
        ("p50", latency(row["p50"]), "bold"),
        ("p95", latency(row["p95"]), "bold"),
        ("p99", latency(row["p99"]), "bold"),
        ("5xx", f"{row['errors']:,}\n", "bold red" if row["errors"] else "bold"),
        ("sent", octets(row["bytes"]), "bold"),
        ("origin time saved", span(row["saved_seconds"]), "bold"),
        ("memory", octets(store.get("l1_bytes", 0)), "bold"),
    ):
        text.append(f"{name} ", style="dim")
        text.append(value if value.endswith("\n") else f"{value}  ", style=style)
    return text


def _over_time(told: dict[str, Any]) -> Text:
    """Requests of the last SPARKS slots, the whole ones."""
    step = told["step"]
    last = int(told["now"] // step) * step
    slots = {row["at"]: row["requests"] for row in told["history"]}
    counts = [slots.get(last - step * back, 0) for back in range(SPARKS, 0, -1)]
    most = max(counts)
    line = "".join(" " if not n else BARS[min(len(BARS) - 1, n * len(BARS) // (most + 1))] for n in counts)
    text = Text("last 5 min ", style="dim")
    text.append(line, style="cyan")
    text.append(f" at most {rate(most / step)}/s", style="dim")
    return text


def _rules(told: dict[str, Any], sort: str) -> Table:
    table = _table(f"rule, over {told['window']}", "requests", "/s", "hit ratio", "p50", "p95", "p99", "5xx",
                   "sent", "saved")  # fmt: skip
    seconds = told["window_seconds"]
    rows = sorted(told["rules"], key=lambda row: row["name"])
    if sort != "name":
        rows.sort(key=lambda row: -(row[sort] if row[sort] is not None else -1.0))
    for row in (*rows, {**told["all"], "name": "all"}):
        passed = row["requests"] and row["hit_ratio"] is None
        table.add_row(
            Text(plain(row["name"]), style="bold"),
            f"{row['requests']:,}",
            rate(row["requests"] / seconds),
            "passed" if passed else share(row["hit_ratio"]),
            latency(row["p50"]),
            latency(row["p95"]),
            latency(row["p99"]),
            Text(f"{row['errors']:,}", style="red" if row["errors"] else ""),
            octets(row["bytes"]),
            span(row["saved_seconds"]),
            end_section=row is (rows[-1] if rows else None),
        )
    return table


def _origins(told: dict[str, Any]) -> Table:
    table = _table("origin", "state", "asked", "failed", "5xx", "now", "head after")
    table.columns[1].justify = "left"
    for row in told["origins"]:
        state = f"{row['state']} ({row['reason']})" if row.get("reason") else row["state"]
        table.add_row(
            Text(plain(f"{row['pool']}: {row['origin']}"), style="bold"),
            Text(plain(state), style="green" if row["state"] == "usable" else "red"),
            f"{row['requests']:,}",
            f"{row['failures']:,}",
            f"{row['errors']:,}",
            str(row["in_flight"]),
            latency(row["latency_seconds"] if row["requests"] else None),
        )
    return table


def _troubles(told: dict[str, Any]) -> Table:
    table = _table("error", "last", "times", "client got", "rule", "example")
    for column in table.columns[3:]:
        column.justify = "left"
    for row in told["troubles"][:TROUBLES]:
        got = "stale answer" if row["saved_by"] else str(row["status"] or "nothing")
        table.add_row(
            Text(plain(row["reason"] or "the origin's own")),
            f"{span(told['now'] - row['last'])} ago",
            f"{row['count']:,}",
            Text(got, style="yellow" if row["saved_by"] else "red"),
            plain(row["rule"]),
            Text(plain(f"{row['method']} {row['url']}"), style="dim"),
        )
    return table


def _wanted(told: dict[str, Any]) -> Table:
    table = _table("most wanted", "rule", "weight")
    table.columns[1].justify = "left"
    for row in told["wanted"][:WANTED]:
        table.add_row(Text(plain(row["url"])), Text(plain(row["rule"]), style="dim"), f"{row['weight']:,.0f}")
    return table


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    table.add_column(first, no_wrap=True, overflow="ellipsis")
    for title in others:
        table.add_column(title, justify="right", no_wrap=True, overflow="ellipsis")
    return table


def plain(text: object) -> str:
    said = printable(str(text))
    return said if len(said) <= LONGEST else f"{said[: LONGEST - 1]}…"


def share(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.1%}"


def rate(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.1f}"


def latency(seconds: float | None) -> str:
    """``0.0421`` -> ``42 ms``."""
    if seconds is None:
        return "-"
    if seconds < 0.00095:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 0.95:
        return f"{seconds * 1e3:.3g} ms"
    return f"{seconds:.3g} s"


def span(seconds: float | None) -> str:
    """``93784`` -> ``1 d 2 h``: the two largest units."""
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.3g} s"
    left = int(seconds)
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        number, left = divmod(left, size)
        if number or parts:
            parts.append(f"{number} {unit}")
    return " ".join(parts[:2])
