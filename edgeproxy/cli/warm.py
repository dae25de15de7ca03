"""``edgeproxy warm``: have a running edgeproxy ask for URLs before its clients do.

Rules of this file:

- Flags in, one call that streams, text out: a line for each URL, how far it is on standard error where that
  is a terminal.
- Ctrl-C stops the warm-up, not only the looking on.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeproxy.cli import client

if TYPE_CHECKING:
    import argparse

MOST_WANTED = 200
WIDTH = 30
LARGEST_LIST = 8 * 1024 * 1024
_EPILOG = "Exit codes: 0 all are in the cache or may not be, 1 some failed or were refused, 2 wrong usage."


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "warm",
        help="fill the cache before clients ask",
        description="Have a running edgeproxy ask its origin for what is not fresh in the cache. URLs are "
        "those that clients use: scheme and host are part of what an answer is stored under.",
        epilog=_EPILOG,
    )
    parser.add_argument("urls", nargs="*", metavar="URL", help="URLs, or paths with --host")
    parser.add_argument("--file", metavar="LIST", help="a list, one URL a line; - is standard input")
    parser.add_argument(
        "--sitemap", metavar="URL", help="a sitemap or an index of sitemaps, as the origin has it"
    )
    parser.add_argument(
        "--most-wanted", metavar="N", nargs="?", const=str(MOST_WANTED),
        help=f"what clients asked for most in the last hour; N is {MOST_WANTED} if left out, 1000 at most",
    )  # fmt: skip
    parser.add_argument(
        "--host", metavar="HOST", default="", help="of URLs that are paths: http://api.example"
    )
    parser.add_argument(
        "--also-host", metavar="HOST", action="append", default=[], help="another host a sitemap may name"
    )
    parser.add_argument(
        "--header", "-H", metavar="'NAME: VALUE'", action="append", default=[],
        help="a field to send, for answers that vary; never a credential",
    )  # fmt: skip
    parser.add_argument("--rate", metavar="N", default="20", help="URLs a second; default 20")
    parser.add_argument("--concurrency", metavar="N", default="4", help="at a time, 1 to 64; default 4")
    parser.add_argument(
        "--format", choices=("text", "json"), default="text", help="json: the lines as they come"
    )
    client.add_flags(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    return client.guarded(lambda: _warm(args))


def _warm(args: argparse.Namespace) -> int:
    body = _body(args)
    job = ""
    bar = _Bar(shown=sys.stderr.isatty() and args.format == "text")
    last: dict[str, Any] = {}
    try:
        for line in client.lines(args, "POST", "/api/cache/warm", body):
            if "job" in line:
                last = line["job"]
                job = str(last.get("id", ""))
            bar.clear()
            _show(line, as_json=args.format == "json")
            bar.draw(line)
    except KeyboardInterrupt:
        bar.clear()
        if job:
            client.call(args, "DELETE", f"/api/cache/warm/{job}", accept=(200, 404))
            print("edgeproxy: the warm-up is stopped", file=sys.stderr)
        raise
    finally:
        bar.clear()
    counts = last.get("results") or {}
    if last.get("state") != "done":
        raise client.Failed(f"the warm-up did not reach its end: {last.get('why') or last.get('state')}")
    if args.format == "text":
        told = ", ".join(f"{n} {result}" for result, n in counts.items() if n)
        print(f"{client.counted(last.get('total', 0), 'URL')}: {told or 'nothing to do'}")
    return 1 if counts.get("failed") or counts.get("refused") else 0


def _body(args: argparse.Namespace) -> dict[str, object]:
    ways = [bool(args.urls), args.file is not None, args.sitemap is not None, args.most_wanted is not None]
    if sum(ways) != 1:
        raise client.Usage("warm: expected one of URLs, --file, --sitemap and --most-wanted")
    body: dict[str, object] = {"rate": _number(args.rate, "--rate")}
    body["concurrency"] = int(_number(args.concurrency, "--concurrency"))
    if args.urls:
        body["urls"] = args.urls
    elif args.file is not None:
        body["urls"] = _list(args.file)
    elif args.sitemap is not None:
        body["sitemap"], body["hosts"] = args.sitemap, args.also_host
    else:
        body["most_wanted"] = int(_number(args.most_wanted, "--most-wanted"))
    if args.host:
        body["host"] = args.host
    headers = dict(_header(text) for text in args.header)
    if headers:
        body["headers"] = headers
    return body


def _number(text: str, flag: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < 1e6:
        raise client.Usage(f"{flag}: {text!r}: expected a number above 0")
    return number


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise client.Usage(f"--header: {text!r}: expected 'Name: value'")
    return name.strip(), value.strip()


def _list(name: str) -> list[str]:
    from edgeproxy.warm.urls import listed  # noqa: PLC0415 - what only a list needs

    try:
        stream = sys.stdin.buffer if name == "-" else Path(name).open("rb")  # noqa: SIM115 - closed below
        try:
            octets = stream.read(LARGEST_LIST + 1)
        finally:
            if name != "-":
                stream.close()
        if len(octets) > LARGEST_LIST:
            raise client.Usage(f"--file: {name}: larger than {LARGEST_LIST // 1024**2} MiB")
        urls = listed(octets.decode())
    except OSError as error:
        raise client.Usage(f"--file: {name}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise client.Usage(f"--file: {name}: not UTF-8") from None
    if not urls:
        raise client.Usage(f"--file: {name}: no URLs")
    return urls


def _show(line: dict[str, Any], *, as_json: bool) -> None:
    import json  # noqa: PLC0415 - what only a call needs

    if as_json:
        print(json.dumps(line), flush=True)
    elif "url" in line:
        parts = [f"{line.get('result', ''):<12}", str(line["url"])]
        if line.get("status") not in (None, 0, 200):
            parts.append(str(line["status"]))
        if line.get("bytes"):
            parts.append(client.octets(line["bytes"]))
        if line.get("seconds"):
            parts.append(f"{line['seconds'] * 1000:.0f} ms")
        if line.get("reason"):
            parts.append(f"({line['reason']})")
        print(client.printable("  ".join(parts)))


class _Bar:
    """One line on standard error that is drawn over."""

    def __init__(self, *, shown: bool) -> None:
        self._shown = shown
        self._drawn = False

    def draw(self, line: dict[str, Any]) -> None:
        total, done = line.get("total") or 0, line.get("done") or 0
        if not self._shown or "job" in line:
            return
        if total:
            filled = WIDTH * done // total
            text = f"[{'#' * filled}{'.' * (WIDTH - filled)}] {done}/{total}"
        else:
            text = "gathering URLs"
        print(f"\r{text}", end="", file=sys.stderr, flush=True)
        self._drawn = True

    def clear(self) -> None:
        if self._drawn:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._drawn = False
