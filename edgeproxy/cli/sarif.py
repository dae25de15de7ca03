"""What ``check`` has found, as SARIF 2.1.0: the form in which code hosts show findings beside the lines.

Rules of this file: only what the standard requires and readers use; places are relative to where the command
was run, as the files are in a checkout.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeproxy import __version__
from edgeproxy.rules.lint import WARNINGS, Kind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgeproxy.rules.lint import Finding
    from edgeproxy.rules.problems import Problem

REFUSED = "refused"
_SAYS = {
    REFUSED: "The rule files are refused.",
    Kind.DEAD.value: "A rule is never reached.",
    Kind.DEAD_PATH.value: "One of a rule's paths is never reached.",
    Kind.METHOD.value: "A rule is for a method that is not registered.",
    Kind.HOSTS.value: "A rule shares the answers of one host with all others.",
    Kind.CROSSING.value: "Two rules overlap and decide otherwise.",
    Kind.SUSPICIOUS.value: "A rule shares what was for one client.",
    Kind.UNFINISHED.value: "Not all rules were compared.",
}


def sarif(directory: Path, problems: Iterable[Problem], findings: Iterable[Finding]) -> str:
    """The log of one run, as text."""
    results = [
        _result(
            REFUSED,
            "error",
            f"{p.key}: {p.message}" if p.key else p.message,
            directory,
            p.file,
            p.line,
            p.column,
        )
        for p in problems
    ]
    for each in findings:
        file, _, line = each.at.rpartition(":")
        level = "warning" if each.kind in WARNINGS else "note"
        said = f"{each.rule}: {each.message}" if each.rule else each.message
        results.append(_result(each.kind.value, level, said, directory, file, int(line or 0), 1))
    driver = {
        "name": "edgeproxy check",
        "version": __version__,
        "rules": [{"id": name, "shortDescription": {"text": says}} for name, says in _SAYS.items()],
    }
    told = {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "results": results}],
    }
    return json.dumps(told, indent=2)


def _result(
    rule: str, level: str, message: str, directory: Path, file: str, line: int, column: int
) -> dict[str, Any]:
    where = Path(file) if file else directory
    place: dict[str, Any] = {"artifactLocation": {"uri": where.as_posix()}}
    if line:
        place["region"] = {"startLine": line, "startColumn": max(1, column)}
    return {
        "ruleId": rule,
        "level": level,
        "message": {"text": message},
        "locations": [{"physicalLocation": place}],
    }
