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
        epilog="SIGTERM and Ctrl-C drain; SIGHUP reloads the rules and reopens the access log; SIGUSR2 "
        "replaces the workers (of several) one at a time, with the code and the --config file as they are "
        "then. "
        "Ready when GET /readyz on the admin address answers 200. Under systemd it takes the sockets of a "
        ".socket unit (one named admin is the admin port), says when it is ready, reloading and stopping, "
        "and feeds the watchdog (Type=notify-reload).",
    )
    settings.add_flags(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    import gc  # noqa: PLC0415 - what only this command needs
    import logging  # noqa: PLC0415

    # Modules are no garbage: to look for some while they come in takes a tenth of a start.
    gc.disable()
    from edgeproxy.config_copy import ConfigCopy  # noqa: PLC0415
    from edgeproxy.rules.problems import RuleError  # noqa: PLC0415
    from edgeproxy.supervisor import run_workers  # noqa: PLC0415

    gc.enable()

    environ = settings.environment()
    flags = vars(args)
    try:
        handed = settings.handed_down(environ)
        source = flags["config"] or environ.get("EDGEPROXY_CONFIG")
        config = ConfigCopy(
            source if handed is None else handed.config or source,
            lambda file: settings.load({**flags, "config": file}, environ),
        )
        logging.basicConfig(
            level=config.settings.log_level.upper(),
            format="%(asctime)s %(levelname)s %(name)s: %(message)s",
            stream=sys.stderr,
        )
        if handed is None:  # once, not by each worker
            for line in settings.doubts(flags, environ):
                logging.getLogger("edgeproxy").warning("%s", line)
        return run_workers(config)
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
