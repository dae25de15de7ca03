"""``edgeproxy store``: look at what is stored, check it, pack it.

Rules of this file:

- Flags in, one call, text out: what happens is in edgeproxy/store/.
- Exit 0: done, or clean; 1: damage was found, or it did not work; 2: wrong usage, or no store is there.
- Results on standard output, progress and errors on standard error.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from edgeproxy import settings
from edgeproxy.cli.given import add_format
from edgeproxy.cli.store_text import entries_text, size, totals_text

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from pathlib import Path

    from edgeproxy.store.inspect import Wanted
    from edgeproxy.store.open import StoreUrl

_FLAGS = ("store", "store_password_file", "cache_dir", "origin", "origin_host")
_EVERY = 2.0
"""Seconds between two words of progress."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "store",
        help="look at what is stored, check it, pack it",
        description="Look at the shared store, check it or pack it. --store says which, as for serve; "
        "without it, the default store of --origin.",
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)

    inspect = actions.add_parser(
        "inspect",
        help="totals, or the stored variants of a URL",
        description="Totals of the store; with a URL, --key or --prefix the stored variants. Never a body or "
        "a field. Works while edgeproxy serves from the same store.",
    )
    which = inspect.add_mutually_exclusive_group()
    which.add_argument("url", nargs="?", metavar="URL", help="a URL, or a path (on any host)")
    which.add_argument("--key", metavar="K", help="the key, as 'edgeproxy explain' shows it")
    which.add_argument("--prefix", metavar="P", help="a URL or path, and all that begin so")
    inspect.add_argument(
        "--by", choices=("host", "rule"), default="host", help="what totals are broken down by"
    )
    inspect.add_argument("--limit", type=_limit, default=20, metavar="N", help="show so many; default 20")

    verify = actions.add_parser(
        "verify",
        help="decode every record",
        description="Decode every record as serving would. Works while edgeproxy serves from the same store, "
        "and changes nothing without --repair. Exit 0: nothing damaged, or repaired; 1: damage found.",
    )
    verify.add_argument("--repair", action="store_true", help="delete what is damaged or leads nowhere")
    verify.add_argument("--limit", type=_limit, default=20, metavar="N", help="name so many; default 20")

    compact = actions.add_parser(
        "compact",
        help="leave out what is over and give the space back",
        description="Write the store anew without what is expired or purged, and put it in place. No other "
        "process may have the store open; one that starts meanwhile waits.",
    )
    for action, run in ((inspect, _inspect), (verify, _verify), (compact, _compact)):
        settings.add_flags(action, _FLAGS)
        action.add_argument("--config", metavar="FILE", help="the --config file of serve")
        add_format(action)
        action.set_defaults(run=_guarded(run))


def _limit(value: str) -> int:
    return settings.count(value)


def _guarded(run: Callable[[argparse.Namespace, StoreUrl], int]) -> Callable[[argparse.Namespace], int]:
    def guarded(args: argparse.Namespace) -> int:
        from edgeproxy.store.lmdb_backend import FileError  # noqa: PLC0415 - what only this command needs
        from edgeproxy.store.open import parse_store_url  # noqa: PLC0415
        from edgeproxy.store.shared import StoreUnusable  # noqa: PLC0415

        try:
            try:
                place = parse_store_url(settings.load_store(vars(args), settings.environment()))
            except settings.SettingsError:
                raise
            except ValueError as error:
                raise settings.SettingsError(f"--store: {error}") from None
            return run(args, place)
        except (settings.SettingsError, StoreUnusable) as error:
            print(f"edgeproxy: {error}", file=sys.stderr)
            return 2
        except _Refused as error:
            print(f"edgeproxy: {error}", file=sys.stderr)
            return 1
        except FileError as error:
            print(
                f"edgeproxy: {place.shown}: {' '.join(str(error).split())}; with edgeproxy stopped the file "
                "can be deleted: what was stored is fetched again",
                file=sys.stderr,
            )
            return 1

    return guarded


class _Refused(Exception):  # noqa: N818 - what is wrong, in the reader's words
    """It cannot be done now."""


def _file_of(place: StoreUrl, action: str) -> Path:
    if place.path is None:
        raise settings.SettingsError(f"{place.shown}: 'store {action}' is for LMDB; {_WHY[place.kind]}")
    return place.path


_WHY = {
    "memory": "what is in memory alone ends with its process",
    "redis": "Redis keeps its own house, and each record is checked when it is read",
    "memcached": "Memcached keeps its own house, and each record is checked when it is read",
}


class _Progress:
    """Says on standard error how far it is, every two seconds."""

    def __init__(self) -> None:
        from edgeproxy.clock import Clock  # noqa: PLC0415

        self.clock = Clock()
        self._said = self.clock.monotonic()
        self._written = False

    def __call__(self, count: int) -> None:
        if count % 256 or self.clock.monotonic() < self._said + _EVERY:
            return
        self._said = self.clock.monotonic()
        self._written = True
        tty = sys.stderr.isatty()
        print(f"\r{count} records" if tty else f"{count} records", end="" if tty else "\n", file=sys.stderr)
        sys.stderr.flush()

    def end(self) -> None:
        if self._written and sys.stderr.isatty():
            print(file=sys.stderr)


def _inspect(args: argparse.Namespace, place: StoreUrl) -> int:
    asked = args.url is not None or args.key is not None or args.prefix is not None
    if place.kind == "memory":
        _file_of(place, "inspect")
    if place.path is None:
        if asked:
            raise settings.SettingsError(
                f"{place.shown}: entries can be looked up in LMDB only; for this store ask the admin port"
            )
        return _inspect_remote(args, place)
    from edgeproxy.store.inspect import purge_table, totals, variants  # noqa: PLC0415
    from edgeproxy.store.lmdb_file import LmdbFile  # noqa: PLC0415

    progress = _Progress()
    now = progress.clock.now()
    with LmdbFile(place.path) as file:
        table, said = purge_table(place.path)
        if asked:
            found, count = variants(file, table, now, _wanted(args), args.limit, progress)
            progress.end()
            told = {"entries": found, "count": count, "purge_table": said}
            _print(args, told, lambda: entries_text(told))
            return 0
        facts = {"state": said} | ({} if table is None else table.facts())
        told = {
            "store": place.shown,
            "file": file.facts(),
            **totals(file, table, now, args.by, progress),
            "purge_table": facts,
        }
        progress.end()
    _print(args, told, lambda: totals_text(told, args.by, args.limit))
    return 0


def _inspect_remote(args: argparse.Namespace, place: StoreUrl) -> int:
    import asyncio  # noqa: PLC0415

    from edgeproxy.store.remote_facts import remote_facts  # noqa: PLC0415

    told = {"store": place.shown, **asyncio.run(remote_facts(place))}
    _print(args, told, lambda: "\n".join(f"{name:<18} {value}" for name, value in told.items()))
    return 0


def _wanted(args: argparse.Namespace) -> Wanted:
    from edgeproxy.store.inspect import Wanted  # noqa: PLC0415

    if args.key is not None:
        return Wanted(key=args.key)
    given = args.url if args.url is not None else args.prefix
    host, target = None, given.partition("#")[0]
    if "://" in target.partition("?")[0]:
        try:
            parts = urlsplit(target)
        except ValueError:
            raise settings.SettingsError(f"{given!r}: expected a URL or a path") from None
        host = parts.netloc.lower()
        target = target.partition("://")[2][len(parts.netloc) :] or "/"
    if not target.startswith("/"):
        raise settings.SettingsError(f"{given!r}: expected a URL or a path")
    return Wanted(host, target, prefix=args.prefix is not None)


def _verify(args: argparse.Namespace, place: StoreUrl) -> int:
    from edgeproxy.store.inspect import purge_table  # noqa: PLC0415
    from edgeproxy.store.lmdb_file import LmdbFile  # noqa: PLC0415
    from edgeproxy.store.verify import Verifier  # noqa: PLC0415

    path = _file_of(place, "verify")
    progress = _Progress()
    with LmdbFile(path, write=args.repair) as file:
        table, said = purge_table(path)
        report = Verifier(file, table, progress.clock, args.limit, args.repair, progress).run()
    progress.end()
    told = {
        "records": report.records,
        "octets": report.octets,
        **{state.value.replace(" ", "_"): count for state, count in report.counts.items()},
        "deleted": report.deleted,
        "purge_table": said,
        "found": [
            {"state": f.state.value, "record": f.record, "key": f.key, "why": f.why, "octets": f.octets}
            for f in report.found
        ],
    }

    def text() -> str:
        lines = [f"{f.state.value}: {f.record} {f.key or '(no key)'}: {f.why}" for f in report.found]
        left = report.counts
        lines.append(f"{report.records} records, {size(report.octets)}: " + ", ".join(
            f"{count} {state.value}" for state, count in left.items() if count or state.value == "damaged"
        ))  # fmt: skip
        if args.repair:
            lines.append(f"{report.deleted} deleted")
        if said != "ok":
            lines.append(f"purge table: {said}; what is purged cannot be told")
        return "\n".join(lines)

    _print(args, told, text)
    return 0 if report.clean or args.repair else 1


def _compact(args: argparse.Namespace, place: StoreUrl) -> int:
    from edgeproxy.store.compact import compact  # noqa: PLC0415
    from edgeproxy.store.inspect import purge_table  # noqa: PLC0415
    from edgeproxy.store.lmdb_file import StoreOpen  # noqa: PLC0415

    path = _file_of(place, "compact")
    progress = _Progress()
    try:
        done = compact(path, lambda: purge_table(path)[0], progress.clock.now(), progress)
    except StoreOpen as error:
        raise _Refused(str(error)) from None
    progress.end()
    won = done.before - done.after
    told = {
        "before": done.before, "after": done.after, "won": won, "left_out": done.left_out, "kept": done.kept,
    }  # fmt: skip
    _print(
        args,
        told,
        lambda: (
            f"{size(done.before)} -> {size(done.after)}: {size(max(0, won))} won, "
            f"{done.left_out} records left out, {done.kept} kept"
        ),
    )
    return 0


def _print(args: argparse.Namespace, told: dict[str, Any], text: Callable[[], str]) -> None:
    import json  # noqa: PLC0415

    print(json.dumps(told, indent=2) if args.format == "json" else _plain(text()))


def _plain(text: str) -> str:
    """What was stored is the origin's and the clients' text: without its control characters."""
    return "".join(c if c == "\n" or c.isprintable() else "?" for c in text)
