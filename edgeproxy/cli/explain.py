"""``edgeproxy explain``: what would become of a request, and why."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from edgeproxy import settings
from edgeproxy.cli import client
from edgeproxy.cli.given import add_format, say_refused
from edgeproxy.policy.head import Headers, RequestHead, ResponseHead

if TYPE_CHECKING:
    import argparse


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "explain",
        help="say which rule a request falls under and what comes of it",
        description="Say which rule a request falls under, which lost and why, its key, tags and times, "
        "and what clients are told. Nothing is sent to the origin; the answer is an assumed one unless "
        "described. Of a path it is said where the host decides. With --admin, a running edgeproxy is asked "
        "what it has of the URL (the whole one: what is stored is told apart by host), and the last answer "
        "that it knows, stored or not, is the one that is explained.",
        epilog="Exit codes: 0 explained, 1 the rules are wrong or there is no answer, 2 wrong usage.",
    )
    parser.add_argument("url", metavar="URL", help="a URL, or a path")
    parser.add_argument("-X", "--method", default="GET", metavar="METHOD", help="default GET")
    parser.add_argument(
        "-H", "--header", action="append", default=[], metavar="'Name: value'",
        help="a request header; repeatable",
    )  # fmt: skip
    parser.add_argument(
        "-d", "--data", metavar="BODY", help="the request's body, or @FILE; for rules with key.body"
    )
    parser.add_argument("--status", type=int, metavar="STATUS", help="the answer's status; default 200")
    parser.add_argument(
        "--answer-header", action="append", default=[], metavar="'Name: value'",
        help="a header of the answer; repeatable",
    )  # fmt: skip
    parser.add_argument(
        "--rules", metavar="DIR|none",
        help="default: the shipped rules; with --admin that instance's, where they can be read from here",
    )  # fmt: skip
    add_format(parser)
    client.add_flags(parser, unasked=True)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from edgeproxy.cli.live import live  # noqa: PLC0415 - what only this command needs
    from edgeproxy.rules.explain import explain  # noqa: PLC0415 - what only this command needs
    from edgeproxy.rules.last_answer import UNKNOWN  # noqa: PLC0415
    from edgeproxy.rules.load import load_rules  # noqa: PLC0415
    from edgeproxy.rules.match import Matcher  # noqa: PLC0415
    from edgeproxy.rules.model import RuleSet  # noqa: PLC0415
    from edgeproxy.rules.problems import RuleError  # noqa: PLC0415

    given = args.rules if args.rules is not None else settings.environment().get("EDGEPROXY_RULES", "")
    try:
        directory = settings.rules_directory(given)
        request = request_of(args.url, args.method, headers_of(args.header, "-H"))
        hostless = not (_SCHEME.match(args.url) or request.headers.get("host"))
        response = answer_of(args.status, headers_of(args.answer_header, "--answer-header"))
        content = content_of(args.data)
        ruleset = RuleSet() if directory is None else load_rules(directory)
    except (settings.SettingsError, RuleError) as error:
        say_refused(error)
        return 1 if isinstance(error, RuleError) else 2

    def show() -> int:
        nonlocal ruleset
        known = None if args.admin is None else live(args, request)
        if known is not None and not given and known.version != ruleset.version:
            with contextlib.suppress(RuleError, settings.SettingsError, OSError):
                ruleset = RuleSet() if known.source == "none" else load_rules(Path(known.source))
        matcher = Matcher(ruleset)
        if known is not None and hostless and matcher.match(request).rule.key.host:
            known = known.unasked(request)
        described = response is not None or content is not None
        answer = response if known is None or described else known.answer(request.method)
        looked = known is not None and not described and not known.not_asked
        unknown = UNKNOWN if looked and answer is None else ""
        explanation = explain(matcher, request, answer, content=content, unknown=unknown, any_host=hostless)
        if args.format == "json":
            beside = {} if known is None else {"live": known.to_json()}
            print(json.dumps({**explanation.to_json(), **beside}, indent=2))
        else:
            print("\n".join([explanation.text(), *(known.text(ruleset.version) if known else ())]))
        return 0

    return client.guarded(show)


def headers_of(lines: list[str], flag: str) -> Headers:
    fields = []
    for line in lines:
        name, mark, value = line.partition(":")
        if not mark or not name.strip() or not line.isprintable():
            raise settings.SettingsError(f"{flag}: {line!r}: expected 'Name: value'")
        fields.append((name.strip(), value.strip()))
    try:
        return Headers.of(fields)
    except UnicodeEncodeError:
        raise settings.SettingsError(f"{flag}: expected Latin-1 text") from None


def content_of(given: str | None) -> bytes | None:
    """None: nothing was given."""
    if given is None or not given.startswith("@"):
        return None if given is None else given.encode("utf-8", "surrogateescape")
    try:
        return Path(given[1:]).read_bytes()
    except OSError as error:
        raise settings.SettingsError(f"--data: {error}") from None


def answer_of(status: int | None, headers: Headers) -> ResponseHead | None:
    """None: nothing was said of it."""
    if status is None and not headers:
        return None
    if status is not None and not 200 <= status <= 599:
        raise settings.SettingsError(f"--status: {status}: expected 200 to 599")
    return ResponseHead(status or 200, "", headers)


_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)")


def request_of(url: str, method: str, headers: Headers) -> RequestHead:
    scheme, host = "http", headers.get("host") or "localhost"
    target = url.partition("#")[0]
    found = _SCHEME.match(target)
    if found is not None:
        scheme, host, target = found[1].lower(), found[2], target[found.end() :]
        if scheme not in ("http", "https"):
            raise settings.SettingsError(f"{url!r}: expected an http URL or a path")
    if not target.startswith("/"):
        target = f"/{target}"
    good = re.fullmatch(r"[A-Za-z0-9._~:\[\]-]+", host)
    if not good or not target.isascii() or not target.isprintable() or " " in target:
        raise settings.SettingsError(f"{url!r}: expected an http URL or a path, percent-encoded")
    if not re.fullmatch(r"[A-Za-z][A-Za-z-]*", method):
        raise settings.SettingsError(f"-X: {method!r}: expected a method, such as GET")
    return RequestHead(method.upper(), scheme, host.lower(), target, headers)
