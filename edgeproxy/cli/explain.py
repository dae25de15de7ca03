"""``edgeproxy explain``: what would become of a request, and why."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from edgeproxy import settings
from edgeproxy.policy.head import Headers, RequestHead, ResponseHead
from edgeproxy.rules.explain import explain
from edgeproxy.rules.load import load_rules
from edgeproxy.rules.match import Matcher
from edgeproxy.rules.model import RuleSet
from edgeproxy.rules.problems import RuleError

if TYPE_CHECKING:
    import argparse


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "explain",
        help="say which rule a request falls under and what comes of it",
        description="Say which rule a request falls under, which lost and why, its key, tags and times, and "
        "what clients are told. Nothing is sent anywhere; the answer is an assumed one unless described.",
    )
    parser.add_argument("url", metavar="URL", help="a URL, or a path")
    parser.add_argument("-X", "--method", default="GET", metavar="METHOD", help="default GET")
    parser.add_argument(
        "-H", "--header", action="append", default=[], metavar="'Name: value'", help="a request header; repeatable"
    )
    parser.add_argument("--status", type=int, metavar="STATUS", help="the answer's status; default 200")
    parser.add_argument(
        "--answer-header", action="append", default=[], metavar="'Name: value'",
        help="a header of the answer; repeatable",
    )  # fmt: skip
    parser.add_argument("--rules", metavar="DIR|none", help="default: the shipped rules")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="how to print it")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    try:
        given = args.rules if args.rules is not None else settings.environment().get("EDGEPROXY_RULES", "")
        directory = settings.rules_directory(given)
        request = request_of(args.url, args.method, headers_of(args.header, "-H"))
        response = None
        if args.status is not None or args.answer_header:
            response = ResponseHead(args.status or 200, "", headers_of(args.answer_header, "--answer-header"))
            if not 200 <= response.status <= 599:
                raise settings.SettingsError(f"--status: {args.status}: expected 200 to 599")
        ruleset = RuleSet() if directory is None else load_rules(directory)
    except settings.SettingsError as error:
        print(f"edgeproxy: {error}", file=sys.stderr)
        return 2
    except RuleError as error:
        print(f"edgeproxy: the rules are refused:\n{error}", file=sys.stderr)
        return 1
    explanation = explain(Matcher(ruleset), request, response)
    print(json.dumps(explanation.to_json(), indent=2) if args.format == "json" else explanation.text())
    return 0


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


def request_of(url: str, method: str, headers: Headers) -> RequestHead:
    scheme, mark, rest = url.partition("://")
    if not mark:
        scheme, rest = "http", f"{headers.get('host') or 'localhost'}{url if url.startswith('/') else '/' + url}"
    elif scheme not in ("http", "https"):
        raise settings.SettingsError(f"{url!r}: expected an http URL or a path")
    host, slash, path = rest.partition("/")
    host, mark, query = host.partition("?")
    target = f"/{path}" if slash else (f"/?{query}" if mark else "/")
    target = target.partition("#")[0]
    if not host or not target.isascii() or not target.isprintable() or " " in target:
        raise settings.SettingsError(f"{url!r}: expected an http URL or a path, percent-encoded")
    if method.upper() != method or not method.isalpha():
        method = method.upper()
    return RequestHead(method, scheme, host.lower(), target, headers)
