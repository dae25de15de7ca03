"""``edgeproxy demo``: a real origin API with edgeproxy in front, to try by hand or as a guided tour.

Rules of this file: flags in, text out; what happens is in edgeproxy/demo/ and by_hand.py.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from edgeproxy import settings

if TYPE_CHECKING:
    import argparse

    from edgeproxy.demo.processes import Places


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "demo",
        help="start a small real API with edgeproxy in front",
        description="Start a small real API on SQLite with edgeproxy and the shipped rules in front.",
        epilog="Exit codes: 0 ended well, 1 something did not run or show what it should, 2 wrong usage, or "
        "an address that was given is taken.",
    )
    parser.add_argument("--once", action="store_true", help="run the guided tour, print what it saw, and end")
    for flag, metavar, what, port in (
        ("--listen", "HOST:PORT", "where clients connect", "127.0.0.1:8080"),
        ("--admin", "HOST:PORT", "where operators connect", "127.0.0.1:8081"),
        ("--origin-port", "PORT", "where the small API listens, on 127.0.0.1", "8090"),
    ):
        taken = f"default {port}, or a free port where that is taken"
        parser.add_argument(flag, metavar=metavar, help=f"{what}; {taken}")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    import asyncio  # noqa: PLC0415 - what only this command needs

    from edgeproxy.cli.by_hand import by_hand  # noqa: PLC0415
    from edgeproxy.clock import Clock  # noqa: PLC0415
    from edgeproxy.demo.tour import tour  # noqa: PLC0415

    environment = settings.environment()
    try:
        places = _places(args)
        if args.once:
            return asyncio.run(tour(environment, settings.shipped_rules(), Clock(), places))
        return asyncio.run(by_hand(environment, Clock(), places))
    except settings.SettingsError as error:
        print(f"edgeproxy: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _places(args: argparse.Namespace) -> Places:
    """Those that were given, each free. Raises SettingsError."""
    from edgeproxy.demo.processes import Places, why_not_free  # noqa: PLC0415 - what only this command needs

    given: dict[str, settings.Address] = {}
    for name, kind in (("listen", settings.address), ("admin", settings.address), ("origin_port", _port)):
        text, flag = getattr(args, name), f"--{name.replace('_', '-')}"
        if text is None:
            continue
        try:
            place = kind(text)
        except ValueError as error:
            raise settings.SettingsError(f"{flag}: {text!r}: {error}") from None
        wrong = why_not_free(place)
        if any(_collide(place, each) for each in given.values()):
            wrong = "the port is given twice"
        if wrong:
            raise settings.SettingsError(
                f"{flag}: {place}: {wrong}; give another one, or 0 for any that is free"
            )
        given[name] = place
    return Places(given.get("listen"), given.get("admin"), given.get("origin_port"))


def _collide(one: settings.Address, other: settings.Address) -> bool:
    everywhere = {"0.0.0.0", "::"}  # noqa: S104
    # By any name it is the same: localhost may be 127.0.0.1, so only two addresses are known to differ.
    apart = one.host != other.host and _is_address(one.host) and _is_address(other.host)
    return one.port == other.port != 0 and (not apart or bool(everywhere & {one.host, other.host}))


def _is_address(host: str) -> bool:
    import ipaddress  # noqa: PLC0415 - what only this command needs

    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _port(text: str) -> settings.Address:
    if not text.isdecimal() or not text.isascii() or len(text) > 5 or int(text) > 65535:
        raise ValueError("expected a port, such as 8090")
    return settings.Address("127.0.0.1", int(text))
