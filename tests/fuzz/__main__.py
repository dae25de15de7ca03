"""``python -m tests.fuzz TARGET --minutes N``: octets into a target until the time is over or it breaks.

With atheris installed (``pip install -e '.[fuzz]'``) inputs are led by coverage; without it, or with
``--plain``, by chance alone. What breaks is written to ``--keep DIR``, and ``--input FILE`` plays it again.
Exit 1 where it broke.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import random
import sys
import traceback
from contextlib import nullcontext
from hashlib import sha256
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WORDS = (
    b"\0",
    b"\xff",
    b"\r\n",
    b"\n",
    b" ",
    b",",
    b";",
    b"=",
    b'"',
    b"/",
    b"%2f",
    b"{",
    b"}",
    b"[",
    b": ",
    b"- ",
)


def mutated(data: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    """``data`` with a few places cut, doubled, changed or taken from another input."""
    octets = bytearray(data)
    for _ in range(chance.randint(1, 6)):
        at = chance.randint(0, len(octets))
        until = min(len(octets), at + chance.choice((0, 1, 1, 2, 8, 32)))
        new: bytes
        match chance.randrange(5):
            case 0:
                new = b""
            case 1:
                new = chance.choice(WORDS)
            case 2:
                new = bytes(octets[at:until]) * chance.choice((2, 3, 50))
            case 3:
                other = chance.choice(others)
                start = chance.randint(0, len(other))
                new = other[start : start + chance.choice((1, 8, 64))]
            case _:
                new = chance.randbytes(chance.choice((1, 1, 2, 8)))
        octets[at:until] = new
    return bytes(octets[:100_000])


def by_chance(target: Callable[[bytes], None], seeds: list[bytes], seconds: float, seed: int) -> int:
    """How many inputs it took. An input that breaks the target is in the error's notes."""
    chance = random.Random(seed)
    pool = list(seeds)
    count, until = 0, perf_counter() + seconds
    while perf_counter() < until:
        data = mutated(chance.choice(pool), pool, chance)
        count += 1
        try:
            target(data)
        except BaseException as error:
            error.args = (*error.args, data)
            raise
        if len(pool) < 500 and not count % 50:
            pool.append(data)
    return count


def _nothing() -> None:
    """Most targets have no end."""


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", choices=["entry", "rules", "cache-control", "key", "lane"])
    parser.add_argument("--minutes", type=float, default=1.0, help="how long (default: 1)")
    parser.add_argument("--plain", action="store_true", help="by chance, even where atheris is installed")
    parser.add_argument("--seed", type=int, default=0, help="of chance (default: 0)")
    parser.add_argument(
        "--keep", type=Path, default=Path("fuzz-findings"), help="where what breaks is written"
    )
    parser.add_argument("--input", type=Path, help="only this file, once")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    args = parsed(arguments)
    atheris: Any = None
    if not args.plain and args.input is None and importlib.util.find_spec("atheris") is not None:
        atheris = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["edgeproxy"]) if atheris is not None else nullcontext():
        from tests.fuzz.targets import TARGETS, seeds
    target = TARGETS[args.target]()
    if args.input is not None:
        target(args.input.read_bytes())
        getattr(target, "close", _nothing)()
        return 0
    found = seeds(args.target)
    for data in found:
        target(data)
    if atheris is not None:
        corpus = args.keep / args.target
        corpus.mkdir(parents=True, exist_ok=True)
        for data in found:
            (corpus / sha256(data).hexdigest()[:16]).write_bytes(data)
        flags = [
            f"-max_total_time={int(args.minutes * 60)}",
            "-max_len=20000",
            f"-artifact_prefix={args.keep}/",
        ]
        atheris.Setup([sys.argv[0], *flags, str(corpus)], target)
        atheris.Fuzz()  # ends the process
    try:
        count = by_chance(target, found, args.minutes * 60, args.seed)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
        data = error.args[-1]
        args.keep.mkdir(parents=True, exist_ok=True)
        file = args.keep / f"{args.target}-{sha256(data).hexdigest()[:16]}"
        file.write_bytes(data)
        traceback.print_exc()
        print(f"broken: {file}", file=sys.stderr)  # noqa: T201 - a command
        return 1
    getattr(target, "close", _nothing)()
    print(f"{args.target}: {count:,} inputs, nothing broke")  # noqa: T201 - a command
    return 0


if __name__ == "__main__":
    sys.exit(main())
