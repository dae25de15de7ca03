"""What several commands are given alike (rule files, an access log, ``--format``), and how they say that it
is of no use.

Rules of this file: light to import, as each command's flags are; what it works with is imported when it runs.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from edgeproxy.cli.logged import Log
    from edgeproxy.rules.model import RuleSet

A_LOG = "edgeproxy's access log (JSON lines, or gzipped); - is stdin"


def add_format(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--format", choices=("text", "json"), default="text", help="how to print it")


def read_rules(directory: Path | None) -> RuleSet:
    """None: no rules. Examples are not run: that is check's, and the old ones may no longer hold.

    Raises RuleError."""
    from edgeproxy.rules.load import load_rules  # noqa: PLC0415
    from edgeproxy.rules.model import RuleSet  # noqa: PLC0415

    return RuleSet() if directory is None else load_rules(directory, examples=False)


def say_refused(error: Exception) -> None:
    """One line for a SettingsError; a RuleError's own lines below one of ours."""
    from edgeproxy.rules.problems import RuleError  # noqa: PLC0415

    refused = "the rules are refused:\n" if isinstance(error, RuleError) else ""
    print(f"edgeproxy: {refused}{error}", file=sys.stderr)


def is_a_log(log: Log) -> bool:
    """Whether any line of it could be read, or there was none; says why not."""
    if not log.lines or log.lines != log.unread:
        return True
    print(f"edgeproxy: no access log of edgeproxy: {log.notes()[0]}", file=sys.stderr)
    return False
