"""The public HTTP caching suite against a real edgeproxy: ``python -m tests.conformance``.

Needs Node.js 18 or later, and npm once, for this command only; about a minute. It

- installs the suite (``http-cache-tests``, one fixed release) with npm into ``~/.cache/edgeproxy``, once;
- starts the suite's origin and ``edgeproxy serve --rules none --store memory:`` in front of it;
- runs the suite's client against the edge, and again with a rule that says ``unsafe: [set_cookie]``;
- prints the score by group, every case that is not green with the reason, and the best published scores.

The status is 1 when a case that ``expected.json`` lists as green is red, and red again when run alone, or a
required or optimal one is red and not in ``waived.yaml``; 2 when the suite cannot be had.
``--update`` writes what is green now into ``expected.json``; ``--case ID`` runs one case and prints
its messages; ``--rules PATH`` scores with a rule file instead of the two runs; ``--suite DIR`` runs a
checkout of the suite instead of the release (its npm packages installed), for cases that are newer: what is
green there is not compared with ``expected.json``.

Cases for browsers alone are left out, and so are those of Surrogate-Control, a draft that CDN-Cache-Control
(RFC 9213) has replaced. Our own cases are in ``cases/``, by RFC and section; pytest runs them, without
Node.js (test_cases.py).
"""

# ruff: noqa: T201  (a command: printing is what it is for)

from __future__ import annotations

import argparse
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.conformance import score, suite

EXPECTED = Path(__file__).with_name("expected.json")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.conformance", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "edgeproxy" / "conformance")
    parser.add_argument("--case", metavar="ID", help="run this case alone and print its messages")
    parser.add_argument("--rules", default="none", help="the rules to serve with (default: none)")
    parser.add_argument("--suite", type=Path, metavar="DIR", help="a checkout of the suite")
    parser.add_argument("--update", action="store_true", help="write expected.json from this run")
    args = parser.parse_args(argv)
    expected = json.loads(EXPECTED.read_text()) if EXPECTED.exists() and not args.suite else {}
    try:
        directory = _directory(args)
        with suite.origin(directory) as origin:
            if args.case:
                with suite.edge(origin, args.rules) as edge:
                    suite.show(directory, edge, args.case)
                return 0
            # Both runs mostly wait for answers to grow old: side by side they take half as long.
            with ThreadPoolExecutor() as side_by_side, suite.shared_cookies() as rules:
                second = None
                if args.rules == "none":
                    more = [*expected.get("check", []), *expected.get(score.VARIANT, [])]
                    second = side_by_side.submit(
                        _judged, directory, origin, rules, {**expected, "check": more}
                    )
                verdicts = _judged(directory, origin, args.rules, expected)
                variant = None if second is None else second.result()
    except suite.Unavailable as missing:
        print(f"conformance: {missing}", file=sys.stderr)
        return 2
    except suite.Broken as broken:
        print(f"conformance: {broken}", file=sys.stderr)
        return 1
    waived = score.waivers()
    print(score.report(verdicts, waived, variant))
    if args.update:
        EXPECTED.write_text(json.dumps(_green_now(verdicts, variant), indent=1) + "\n")
        return 0
    bad = score.turned(expected, verdicts) + score.unexplained(verdicts, waived)
    if variant is not None:
        wanted = {case for ids in expected.values() for case in ids}
        bad += [verdict for verdict in variant if verdict.case.id in wanted and not verdict.green]
        bad += score.unexplained(variant, waived)
    bad = list({verdict.case.id: verdict for verdict in bad}.values())
    if bad:
        print("\nred, and should not be:")
        print("\n".join(f"  {verdict.case.id} ({verdict.case.kind}): {verdict.why}" for verdict in bad))
    return 1 if bad else 0


def _directory(args: argparse.Namespace) -> Path:
    if args.suite is None:
        return suite.install(args.cache)
    suite.require("node")
    directory: Path = args.suite.resolve()
    if not (directory / "cli.mjs").exists():
        raise suite.Unavailable(f"{directory} is no checkout of the suite: it has no cli.mjs.")
    return directory


def _judged(directory: Path, origin: str, rules: str, expected: dict[str, list[str]]) -> list[score.Verdict]:
    """One run; what is red and should be green is run once more, alone."""
    with suite.edge(origin, rules) as edge:
        cases, results = suite.cases(directory), suite.run(directory, edge)
        first = score.judge(cases, results)
        again = [*score.turned(expected, first), *score.unexplained(first, score.waivers())]
        for verdict in {verdict.case.id: verdict for verdict in again}.values():
            if suite.passes_alone(directory, edge, verdict.case.id):
                print(f"{verdict.case.id} passed when run again, alone. At first: {verdict.why}")
                results[verdict.case.id] = True
    verdicts = score.judge(cases, results)
    if not any(verdict.green for verdict in verdicts):
        raise suite.Broken("nothing is green: the edge or the suite does not work")
    return verdicts


def _green_now(verdicts: list[score.Verdict], variant: list[score.Verdict] | None) -> dict[str, list[str]]:
    green = score.greens(verdicts)
    already = {case for ids in green.values() for case in ids}
    more = {verdict.case.id for verdict in variant or () if verdict.green} - already
    return {**green, score.VARIANT: sorted(more)}


if __name__ == "__main__":
    sys.exit(main())
