"""What ``edgeproxy store`` says, as text: dicts in, lines out."""

from __future__ import annotations

from typing import Any


def totals_text(told: dict[str, Any], by: str, limit: int) -> str:
    file, table = told["file"], told["purge_table"]
    versions = ", ".join(f"{v} ({n})" for v, n in told["versions"].items()) or "none"
    lines = [
        told["store"],
        f"{told['entries']} entries to serve, {size(told['octets'])}; {told['markers']} markers",
        "not to serve: " + _counted(told, "expired", "purged", "other_table", "unreadable"),
        f"to serve stale: {told['soft_purged']} purged softly",
        ", ".join(f"{name} {size(file[f'{name}_octets'])}" for name in ("file", "map", "used", "free")),
        f"format version: {versions}",
    ]
    if table["state"] == "ok":
        lines.append(
            f"purge table: number {table['number']}, {table['bans']} prefixes and patterns, "
            f"named {table['incarnation']}"
        )
    else:
        lines.append(f"purge table: {table['state']}; what is purged cannot be told")
    groups = told[f"by_{by}"]
    for name, group in list(groups.items())[:limit]:
        lines.append(f"  {name or '(any host)'}: {group['entries']} entries, {size(group['octets'])}")
    if len(groups) > limit:
        lines.append(f"  and {len(groups) - limit} more; --limit shows more")
    return "\n".join(lines)


def entries_text(told: dict[str, Any]) -> str:
    lines = []
    for entry in told["entries"]:
        lines.append(entry["key"])
        if "problem" in entry:
            lines.append(f"  {entry['problem']}: see 'edgeproxy store verify'")
            continue
        left = entry["fresh_for"]
        fresh = f"fresh for {duration(left)}" if left > 0 else f"stale for {duration(-left)}"
        if entry["must_validate"]:
            fresh += ", to be validated"
        lines.append(
            f"  {entry['status']}, rule {entry['rule']}, age {duration(entry['age'])}, {fresh}, "
            f"kept for {duration(entry['stored_for'] or 0)}"
        )
        for name, value in entry["varies_on"].items():
            lines.append(f"  varies on {name}: {'(none)' if value is None else value}")
        windows = [
            f"{name.replace('_', '-')} {duration(entry[name])}"
            for name in ("stale_while_revalidate", "stale_if_error", "stale_if_disconnected", "keep")
            if entry[name]
        ]
        if windows:
            lines.append(f"  {', '.join(windows)}")
        if entry["tags"]:
            lines.append(f"  tags {', '.join(entry['tags'])}")
        codings = [f"{entry['coding'] or 'identity'} {size(entry['body_octets'])}"]
        codings += [f"{coding} {size(octets)}" for coding, octets in entry["codings"].items()]
        lines.append(f"  {', '.join(codings)}; {size(entry['octets'])} in all")
        lines.append(f"  purged: {entry['purged'] or 'unknown, there is no purge table'}")
    shown = len(told["entries"])
    lines.append(f"{told['count']} found" + (f", {shown} shown" if shown < told["count"] else ""))
    return "\n".join(lines)


def _counted(told: dict[str, Any], *names: str) -> str:
    return ", ".join(f"{told[name]} {name.replace('_', ' ')}" for name in names)


def size(octets: int) -> str:
    for unit, scale in (("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024)):
        if octets >= scale:
            return f"{octets / scale:.1f} {unit}"
    return f"{octets} B"


def duration(seconds: float) -> str:
    for unit, scale in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * scale:
            return f"{seconds / scale:.1f} {unit}"
    return f"{seconds:.1f} s"
