"""``edgeproxy alerts``: what fires now and who was told; a test notice to every receiver.

Rules of this file: flags in, one call, text out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgeproxy.cli import client

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

_TOKENS = ("EDGEPROXY_READ_TOKEN", "EDGEPROXY_ADMIN_TOKEN")
_PATIENCE = 60.0

_SAYS = """\
What fires in a running edgeproxy that watches for alerts (serve --alerts FILE), and
how it went with the receivers. The alerts are those that 'edgeproxy init --compose'
writes for Prometheus, worked out by edgeproxy itself (but EdgeproxyDown: that takes
somebody outside). 'edgeproxy alerts test' sends every receiver a test."""

_FILE = """the file that --alerts names, read at the start:
  receivers:                         # URLs as Apprise has them, https://appriseit.com/services/
    chat: slack://TOKEN_A/TOKEN_B/TOKEN_C
    mail: {file: mail-url}           # a URL in a file of its own
    pager: {env: PAGER_URL}          # or in a variable
    log: file:/var/log/edgeproxy-alerts.jsonl
    console: "console:"              # a line of JSON on standard error
  steps:                             # without them: all at once, and again after 5, 15 and 30 minutes
    - {after: 0s, tell: [chat, log]}
    - {after: 5m, tell: [mail]}
    - {after: 15m, tell: [pager], severity: critical}
  repeat: 4h                         # told again that it goes on
  interval: 15s                      # between two looks at the figures
  baseline: usual.json               # of 'edgeproxy baseline record': each rule compared with itself

Without a file: serve with EDGEPROXY_ALERT_URLS, URLs with spaces between them.
console: and file: need nothing; for the others pip install 'edgeproxy[alerts]'."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    import argparse  # noqa: PLC0415 - for the help's line breaks

    parser = subparsers.add_parser(
        "alerts",
        help="what fires now, and who was told",
        description=_SAYS,
        epilog=_FILE + "\n\nExit codes: 0 nothing fires, or every receiver took the test; 1 if not; 2 wrong "
        "usage.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "action", nargs="?", choices=("show", "test"), default="show",
        help="show what fires (the default), or test the receivers",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="all of it, as JSON")
    client.add_flags(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    return client.guarded(lambda: _test(args) if args.action == "test" else _show(args))


def _test(args: argparse.Namespace) -> int:
    told = client.call(args, "POST", "/api/alerts/test", {}, patience=_PATIENCE).body
    receivers: list[dict[str, Any]] = told["receivers"]
    if args.json:
        _print_json(told)
    else:
        for each in receivers:
            said = "taken" if each["ok"] else f"failed: {each['said']}"
            print(client.printable(f"{each['receiver']} ({', '.join(each['kinds'])}): {said}"))
        if not receivers:
            print("there are no receivers: name them in the file of --alerts")
    return 0 if receivers and all(each["ok"] for each in receivers) else 1


def _show(args: argparse.Namespace) -> int:
    told = client.call(args, "GET", "/api/alerts", tokens=_TOKENS).body
    if not isinstance(told, dict) or "watching" not in told:
        raise client.Failed("the answer is not what edgeproxy's alerts look like")
    if args.json:
        _print_json(told)
    elif not told["watching"]:
        raise client.Failed("nobody watches for alerts there: serve --alerts FILE, or --alerts on")
    else:
        for line in _lines(told):
            print(client.printable(line).rstrip())
    return 1 if told.get("firing") else 0


def _lines(told: dict[str, Any]) -> Iterator[str]:
    for each in told["firing"]:
        yield f"{each['severity']}: {each['alert']}, for {_lasted(each['for'])}"
        yield f"  {each['summary']}"
        yield f"  {each['runbook']}"
    if not told["firing"]:
        yield "nothing fires" if told["looked"] else "nothing has been looked at yet"
    if told["pending"]:
        yield "may fire soon: " + ", ".join(
            f"{each['alert']} ({each['severity']})" for each in told["pending"]
        )
    for each in told["over"][:10]:
        ago = _lasted(told["now"] - each["over"])
        yield f"over: {each['alert']} ({each['severity']}), lasted {_lasted(each['for'])}, {ago} ago"
    for each in told["receivers"]:
        yield f"receiver {each['receiver']} ({', '.join(each['kinds'])}): {_standing(each, told['now'])}"


def _standing(each: dict[str, Any], now: float) -> str:
    if each["hangs"] or each["said"]:
        return f"{each['said']}, {_lasted(now - each['failed'])} ago"
    return "told nothing yet" if each["sent"] is None else f"told {_lasted(now - each['sent'])} ago"


def _lasted(seconds: float) -> str:
    """``95`` -> ``1 min``."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def _print_json(told: object) -> None:
    import json  # noqa: PLC0415 - what only this needs

    print(json.dumps(told, indent=2))
