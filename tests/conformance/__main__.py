"""The public HTTP caching suite against a real edgeproxy: ``python -m tests.conformance``.

Needs Node.js 18 or later with npm, for this command only; about a minute. It

- installs the suite (``http-cache-tests``, one fixed release) with npm into ``~/.cache/edgeproxy``, once;
- starts the suite's origin and ``edgeproxy serve --rules none --store memory:`` in front of it;
- runs the suite's client against the edge and prints the score by group, every case that is not green with
  the reason, and the best published scores.

The status is 1 when a case that ``expected.json`` lists as green is red, and red again when run alone; 2 when
the suite cannot be run.
``--update`` writes what is green now into ``expected.json``; ``--case ID`` runs one case and prints
its messages; ``--rules PATH`` scores with a rule file; ``--suite DIR`` runs a checkout of the suite instead
of the release (its npm packages installed), for cases that are newer.

Cases for browsers alone are left out, and so are those of Surrogate-Control, a draft that CDN-Cache-Control
(RFC 9213) has replaced. Our own cases are in ``cases/``, by RFC and section; pytest runs them, without
Node.js (test_cases.py).
"""

# ruff: noqa: T201  (a command: printing is what it is for)

from __future__ import annotations

import argparse
import json
import sys
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
    expected = json.loads(EXPECTED.read_text()) if EXPECTED.exists() else {}
    try:
        directory = args.suite.resolve() if args.suite else suite.install(args.cache)
        with suite.origin(directory) as origin, suite.edge(origin, args.rules) as edge:
            if args.case:
                suite.show(directory, edge, args.case)
                return 0
            cases, results = suite.cases(directory), suite.run(directory, edge)
            verdicts = score.judge(cases, results)
            for verdict in score.turned(expected, verdicts):
                if suite.passes_alone(directory, edge, verdict.case.id):
                    print(f"{verdict.case.id} passed when run again, alone. At first: {verdict.why}")
                    results[verdict.case.id] = True
            verdicts = score.judge(cases, results)
    except suite.Unavailable as missing:
        print(f"conformance: {missing}", file=sys.stderr)
        return 2
    print(score.report(verdicts))
    if not any(verdict.green for verdict in verdicts):
        print("\nnothing is green: the edge or the suite does not work", file=sys.stderr)
        return 2
    if args.update:
        EXPECTED.write_text(json.dumps(score.greens(verdicts), indent=1) + "\n")
        return 0
    turned = score.turned(expected, verdicts)
    if turned:
        print("\nno longer green:")
        print("\n".join(f"  {verdict.case.id} ({verdict.case.kind}): {verdict.why}" for verdict in turned))
    return 1 if turned else 0


if __name__ == "__main__":
    sys.exit(main())
