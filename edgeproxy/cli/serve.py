"""``edgeproxy serve``: flags in, a worker (or several) running until a signal ends it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from edgeproxy import settings

if TYPE_CHECKING:
    import argparse


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "serve",
        help="stand in front of an origin",
        description="Stand in front of an origin API and answer from the cache. Every flag can also be given "
        "as a variable (--store-budget is EDGEPROXY_STORE_BUDGET) or in a --config file.",
        epilog="SIGTERM and Ctrl-C drain; SIGHUP reloads the rules and reopens the access log. "
        "Ready when GET /readyz on the admin address answers 200.",
    )
    settings.add_flags(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    import logging  # noqa: PLC0415 - what only this command needs

    from edgeproxy.rules.problems import RuleError  # noqa: PLC0415
    from edgeproxy.supervisor import run_workers  # noqa: PLC0415

    environ = settings.environment()
    try:
        chosen = settings.load(vars(args), environ)
        logging.basicConfig(
            level=chosen.log_level.upper(),
            format="%(asctime)s %(levelname)s %(name)s: %(message)s",
            stream=sys.stderr,
        )
        if settings.handed_down(environ) is None:  # once, not by each worker
            for line in settings.doubts(vars(args), environ):
                logging.getLogger("edgeproxy").warning("%s", line)
        return run_workers(chosen)
    except settings.SettingsError as error:
        print(f"edgeproxy: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        # Between binding an address and listening on it another process may take it.
        print(f"edgeproxy: {error.strerror or error}", file=sys.stderr)
        return 2
    except RuleError as error:
        print(f"edgeproxy: the rules are refused:\n{error}", file=sys.stderr)
        return 2
