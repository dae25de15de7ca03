"""``python -m tests.load``: play load scenes against edgeproxy, and judge them by a file of targets.

Rules of this file: 0 when every target is met, 1 when one is missed, 2 when the run could not be; the page,
its pictures and the JSON are written in the first two.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

try:
    from tests.bench import machine
    from tests.load.scenes import plan, report
    from tests.load.scenes.run import Unusable, play_on, play_on_ours
    from tests.load.scenes.stage import Edge
    from tests.load.scenes.verdict import SHORT, Targets
except ModuleNotFoundError as missing:
    if (missing.name or "").startswith(("edgeproxy.", "tests.")):
        raise
    told = f"python -m tests.load: {missing.name} is not installed"
    sys.stderr.write(f"{told}; what tests need comes with: pip install -e '.[test]'\n")
    sys.exit(2)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.load.scenes.figures import Played

EPILOG = """\
Without --url an origin and an edge are started, on free ports, with a rule for each scene. With it the load
goes to an edge of yours: put it in front of `python -m tests.load.scenes.origin`, whose answers are checked
octet by octet, or give --urls, a file of the paths that your clients ask for, the most wanted first. Scenes
that kill an origin or purge are left out then.

The load is sent by the clock, from this machine: the times are only as good as the machine is idle.
"""
SHORT_SECONDS = 1.0
MACHINE = ("commit", "cpu", "memory", "kernel", "python")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m tests.load",
        description="Play load scenes against edgeproxy and judge them by targets.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("scene", nargs="*", help="what to play; nothing: list them")
    made.add_argument("--all", action="store_true", help="play all of them")
    made.add_argument("--out", type=Path, default=Path("load-report"), metavar="DIR",
                      help="where report.md, report.json and the pictures go (%(default)s)")  # fmt: skip
    made.add_argument("--targets", type=Path, default=plan.TARGETS, metavar="FILE",
                      help="what has to be reached (tests/load/scenes/targets.yaml)")  # fmt: skip
    made.add_argument("--scenes", type=Path, default=plan.SCENES, metavar="FILE",
                      help="the scenes themselves (tests/load/scenes/scenes.yaml)")  # fmt: skip
    made.add_argument("--rate", type=positive, default=1.0, metavar="TIMES",
                      help="so many times the requests a second of each scene")  # fmt: skip
    made.add_argument("--minutes", type=positive, metavar="N", help="how long the last phase of soak is")
    made.add_argument("--short", nargs="?", type=positive, const=SHORT_SECONDS, metavar="SECONDS",
                      help="does it run here? A second (or SECONDS) for each phase, a tenth of the load, one"
                      " edge for all scenes; of the targets success alone is judged")  # fmt: skip
    made.add_argument("--url", help="an edge that runs already: http://127.0.0.1:8080")
    made.add_argument(
        "--urls", type=Path, metavar="FILE", help="with --url: the paths to ask for, a line each"
    )
    made.add_argument(
        "--admin", metavar="HOST:PORT", help="with --url: the edge's admin port, for its memory"
    )
    return made


def positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text} is not more than 0")
    return value


def main(arguments: Sequence[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    try:
        known = plan.read(args.scenes)
        if not args.scene and not args.all:
            for scene in known.values():
                sys.stdout.write(f"{scene.name:12} {scene.seconds / 60:5.1f} min  {scene.idea}\n")
            return 0
        targets = Targets.read(args.targets, known)
        scenes = chosen(args, known)
        edge = elsewhere(args)
        paths = paths_of(args.urls) if args.urls else None
        return play(args, scenes, targets.only(SHORT) if args.short else targets, edge, paths)
    except (plan.Wrong, Unusable) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except KeyboardInterrupt:
        return 130


def chosen(args: argparse.Namespace, known: dict[str, plan.Scene]) -> list[plan.Scene]:
    """The scenes to play, as long and as heavy as they are to be. Raises Wrong."""
    odd = [name for name in args.scene if name not in known]
    if odd:
        raise plan.Wrong(f"there is no scene {odd[0]!r}: {', '.join(known)}")
    names = list(known) if args.all else list(dict.fromkeys(args.scene))
    scenes = [known[name] for name in names]
    if args.url is not None:
        for scene in scenes:
            if scene.ours:
                sys.stdout.write(f"{scene.name}: left out, it kills an origin or purges\n")
        scenes = [scene for scene in scenes if not scene.ours]
        if not scenes:
            raise plan.Wrong("nothing is left to play")
    if args.minutes is not None:
        scenes = [s.lasting(args.minutes * 60) if s.name == "soak" else s for s in scenes]
    if args.short is not None:
        scenes = [scene.short(args.short) for scene in scenes]
    return [scene.times(args.rate) for scene in scenes]


def elsewhere(args: argparse.Namespace) -> Edge | None:
    """The edge that --url names. Raises Wrong."""
    if args.url is None:
        if args.urls or args.admin:
            raise plan.Wrong("--urls and --admin go with --url")
        return None
    url, admin = urlsplit(args.url), urlsplit(f"//{args.admin}") if args.admin else None
    try:
        port = url.port or {"http": 80, "https": 443}[url.scheme]
        where = (admin.hostname or "127.0.0.1", admin.port or 8081) if admin else None
    except (KeyError, ValueError):
        raise plan.Wrong(f"--url {args.url}: http://HOST:PORT is wanted") from None
    if not url.hostname or url.path not in ("", "/"):
        raise plan.Wrong(f"--url {args.url}: http://HOST:PORT is wanted")
    return Edge(url.hostname, port, url.netloc, tls=url.scheme == "https", admin=where)


def paths_of(path: Path) -> list[str]:
    """Of a file with one path, or URL, a line. Raises Wrong."""
    try:
        lines = [line.strip() for line in path.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise plan.Wrong(f"{path}: {error}") from None
    paths = []
    for line in lines:
        parts = urlsplit(line)
        paths.append((parts.path or "/") + (f"?{parts.query}" if parts.query else ""))
    odd = [p for p in paths if not p.startswith("/") or not p.isascii() or " " in p]
    if odd or not paths:
        raise plan.Wrong(f"{path}: a path or a URL a line is wanted{f', not {odd[0]!r}' if odd else ''}")
    return paths


def play(
    args: argparse.Namespace,
    scenes: list[plan.Scene],
    targets: Targets,
    edge: Edge | None,
    paths: list[str] | None,
) -> int:
    results: list[report.Result] = []

    def done(played: Played) -> None:
        checks = targets.judge(played)
        results.append((played, checks))
        sys.stdout.write(report.summary(played, checks) + "\n")
        sys.stdout.flush()

    began = datetime.now(UTC)
    if edge is not None:
        play_on(scenes, edge, paths, done)
    else:
        with tempfile.TemporaryDirectory(prefix="edgeproxy-load-") as directory:
            play_on_ours(scenes, Path(directory), together=args.short is not None, done=done)
    facts = {
        "when": f"{began:%Y-%m-%d %H:%M} UTC",
        **({name: value for name, value in machine.facts().items() if name in MACHINE}),
        "edge": args.url or "edgeproxy serve, one worker, in memory; its origin takes 20 ms",
        "targets": args.targets.name,
    }
    if args.short is not None:
        facts["short"] = "a tenth of the load for seconds; nothing is said of speed or growth"
    page = report.write(results, facts, args.out)
    sys.stdout.write(f"{page}\n")
    return 0 if all(report.passed(checks) for _, checks in results) else 1


if __name__ == "__main__":
    sys.exit(main())
