"""What ``edgeproxy init`` writes, and with what in it.

Rules of this file:

- KINDS is all there is: for each way to run it the directory of its templates, and what to do next.
- Nothing is written unless all can be: what is there already is left alone, whatever it is, and named.
- ``@NAME@`` is replaced; no other mark is one to us (compose and systemd have ``$``).
- Secrets are made here, at random, in a file that only its owner can read.
- Dashboards (templates/grafana) and alert rules (templates/prometheus) go where compose mounts them.
"""

from __future__ import annotations

import os
import re
import secrets
import sys
from dataclasses import dataclass
from pathlib import Path

from edgeproxy import __version__
from edgeproxy.rules.load import load_bytes, read_files

HERE = Path(__file__).resolve().parent
PRIVATE = frozenset({".env"})
_MARK = re.compile(r"@([A-Z0-9_]+)@")
_LOOPBACK = re.compile(r"(https?://)(?:localhost|127(?:\.\d+){3}|\[::1\])(?=[:/,]|$)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Kind:
    """``origin``: where the API is, unless it is said. ``steps``: what to do with what was written."""

    name: str
    origin: str
    says: str
    steps: tuple[str, ...]


KINDS = (
    Kind(
        "plain",
        "http://127.0.0.1:9000",
        "a config file and rules",
        ("edgeproxy check rules", "edgeproxy serve --config edgeproxy.yaml"),
    ),
    Kind(
        "systemd",
        "http://127.0.0.1:9000",
        "a hardened service and its socket",
        (
            "copy them to where edgeproxy.service says",
            "systemctl enable --now edgeproxy.socket edgeproxy.service",
        ),
    ),
    Kind(
        "compose",
        "http://host.docker.internal:9000",
        "edgeproxy, Redis, Prometheus and Grafana",
        (f"docker build -t edgeproxy:{__version__} CHECKOUT", "docker compose up -d"),
    ),
    Kind(
        "kubernetes",
        "http://127.0.0.1:9000",
        "a Deployment with edgeproxy as a sidecar",
        ("put your image into deployment.yaml", "kubectl apply -k ."),
    ),
)


class There(Exception):  # noqa: N818 - it is what happened
    """Some of what was to be written is there: ``paths``."""

    def __init__(self, paths: list[Path]) -> None:
        super().__init__(", ".join(map(str, paths)))
        self.paths = paths


def write(
    directory: Path, kind: Kind, *, origin: str = "", rules: Path | None = None, force: bool = False
) -> list[Path]:
    """Write the files of ``kind``, with the rule files in ``rules`` (None: some to begin with); their paths.
    Raises There, OSError, and RuleError for rules that are wrong."""
    found = read_files(rules or HERE / "rules")
    load_bytes(found, source=str(rules or "rules"))
    values = {
        "ORIGIN": (from_inside(origin) if kind.name == "compose" else origin) or kind.origin,
        "VERSION": __version__,
        "COMMAND": str(Path(sys.executable).parent / "edgeproxy"),
        "RULE_FILES": "\n".join(f"      - rules/{name}" for name, _ in found),
        **{f"SECRET{number}": secrets.token_urlsafe(24) for number in range(1, 5)},
    }
    files = {f"rules/{name}": octets for name, octets in found}
    files |= {
        where: _MARK.sub(lambda mark: values[mark[1]], octets.decode()).encode()
        for where, octets in _templates(kind.name)
    }
    if kind.name == "compose":
        files |= {f"grafana/dashboards/{where}": octets for where, octets in _templates("grafana")}
        files |= {f"prometheus/rules/{where}": octets for where, octets in _templates("prometheus")}
    paths = {directory / where: octets for where, octets in files.items()}
    there = [path for path in paths if os.path.lexists(path)]
    if there and not force:
        raise There(there)
    for path, octets in paths.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.name in PRIVATE:
            path.unlink(missing_ok=True)
            path.touch(0o600)
        path.write_bytes(octets)
    if kind.name == "compose":  # they are mounted, whether there is something in them or not
        for name in ("grafana/dashboards", "prometheus/rules"):
            (directory / name).mkdir(parents=True, exist_ok=True)
    return sorted(paths)


def from_inside(origins: str) -> str:
    """Origins, comma-separated, as a container reaches them: this machine's loopback is not its own."""
    return _LOOPBACK.sub(r"\1host.docker.internal", origins)


def _templates(name: str) -> list[tuple[str, bytes]]:
    """(path, octets) of each template of a kind. A file that begins with a dot has another name here."""
    base = HERE / name
    found = sorted(path for path in base.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return [
        (".env" if path.name == "env" else str(path.relative_to(base)), path.read_bytes()) for path in found
    ]
