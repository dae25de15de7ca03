"""The suite itself: fetched by npm, kept outside the checkout, run by node.

Rules of this file:

- Nothing of the suite is copied into the repository. Its release is pinned, so that a score means something.
- Its origin and its client run as they are; only the list of cases is read by a line of our own.
- What is started here ends here, whatever happens in between.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeproxy.settings import environment
from tests.support.servers import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PACKAGE = "http-cache-tests"
RELEASE = "0.4.5"

_LIST = """
const index = (await import(process.argv[1] + '/tests/index.mjs')).default
console.log(JSON.stringify(index))
"""


class Unavailable(Exception):  # noqa: N818  (it is a finding)
    """The suite cannot be run here; the text says what is missing."""


class Broken(Exception):  # noqa: N818  (as above)
    """What was to be tested, or the suite itself, does not work."""


@dataclass(frozen=True)
class Case:
    """One case. ``kind`` is "required", "optimal" or "check"; ``depends_on`` names cases without whose
    success this one says nothing."""

    group: str
    id: str
    name: str
    kind: str
    depends_on: tuple[str, ...]


def install(cache: Path) -> Path:
    """The suite's directory, installed below ``cache`` unless it is there already."""
    require("node")
    home = cache / f"{PACKAGE}-{RELEASE}"
    suite = home / "node_modules" / PACKAGE
    if not (suite / "cli.mjs").exists():
        require("npm")
        home.mkdir(parents=True, exist_ok=True)
        flags = ["--no-audit", "--no-fund", "--ignore-scripts", "--omit=dev", "--loglevel=error"]
        command = ["npm", "install", *flags, "--prefix", str(home), f"{PACKAGE}@{RELEASE}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode or not (suite / "cli.mjs").exists():
            raise Unavailable(f"npm could not install {PACKAGE}@{RELEASE}:\n{done.stderr.strip()}")
    return suite


def require(tool: str) -> None:
    """Raises Unavailable where ``tool`` is not on the PATH."""
    if shutil.which(tool) is None:
        raise Unavailable(f"{tool} is not on the PATH; the conformance suite needs Node.js 18 or later.")


def cases(suite: Path) -> list[Case]:
    """All cases that are not for browsers alone."""
    command = ["node", "--input-type=module", "-e", _LIST, str(suite)]
    listed = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return [
        Case(group["name"], case["id"], case["name"], case.get("kind", "required"),
             tuple(case.get("depends_on", ())))
        for group in listed
        for case in group["tests"]
        if not case.get("browser_only")
    ]  # fmt: skip


@contextlib.contextmanager
def origin(suite: Path) -> Iterator[str]:
    """The suite's origin; gives its URL."""
    port = free_port()
    with tempfile.TemporaryDirectory() as scratch:
        said = {"protocol": "http", "port": str(port), "pidfile": str(Path(scratch) / "pid")}
        with _running(["node", "server/server.mjs"], _npm(said), suite, f"http://127.0.0.1:{port}/"):
            yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def shared_cookies() -> Iterator[str]:
    """A rule file for the variant; gives its directory."""
    with tempfile.TemporaryDirectory() as scratch:
        rules = "rules: [{name: all, match: {path: /**}, unsafe: [set_cookie]}]\n"
        (Path(scratch) / "shared-cookies.yaml").write_text(rules)
        yield scratch


@contextlib.contextmanager
def edge(origin: str, rules: str) -> Iterator[str]:
    """A real ``edgeproxy serve`` in front of ``origin``; gives its URL."""
    port, admin = free_port(), free_port()
    command = [
        sys.executable, "-m", "edgeproxy", "serve", "--origin", origin, "--rules", rules,
        "--store", "memory:", "--workers", "1", "--access-log", "off", "--log-level", "warning",
        "--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{admin}",
    ]  # fmt: skip
    env = {**environment(), "EDGEPROXY_ADMIN_TOKEN": "conformance"}
    with _running(command, env, Path.cwd(), f"http://127.0.0.1:{admin}/readyz"):
        yield f"http://127.0.0.1:{port}"


def run(suite: Path, url: str) -> dict[str, Any]:
    """Run all cases against ``url``: by id True, or what failed as [kind of failure, text]."""
    done = subprocess.run(
        ["node", "--no-warnings", "cli.mjs"],
        cwd=suite, env=_npm({"base": url, "id": ""}), capture_output=True, text=True, check=False,
    )  # fmt: skip
    try:
        results: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise Broken(f"the suite's client failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}") from None
    return results


def show(suite: Path, url: str, case: str) -> None:
    """Run one case and let the suite print every message as client and origin saw it."""
    command = ["node", "--no-warnings", "cli.mjs"]
    subprocess.run(command, cwd=suite, env=_npm({"base": url, "id": case}), check=False)


def passes_alone(suite: Path, url: str, case: str) -> bool:
    """Run one case by itself: what fails among a hundred others at once may be the machine's load."""
    done = subprocess.run(
        ["node", "--no-warnings", "cli.mjs"],
        cwd=suite, env=_npm({"base": url, "id": case}), capture_output=True, text=True, check=False,
    )  # fmt: skip
    # Its last line is the sign of the result, " - " and what failed.
    return done.stdout.strip().rpartition("\n")[2].startswith(("✅", "Y "))


def _npm(said: dict[str, str]) -> dict[str, str]:
    """The environment in which npm would run the suite's scripts, with these settings."""
    return {**environment(), **{f"npm_package_config_{name}": value for name, value in said.items()}}


@contextlib.contextmanager
def _running(command: Sequence[str], env: dict[str, str], cwd: Path, ready: str) -> Iterator[None]:
    # What the edge complains of is shown; the suite's origin talks all the time.
    quiet = subprocess.DEVNULL if command[0] == "node" else None
    process = subprocess.Popen(command, env=env, cwd=cwd, stdout=subprocess.DEVNULL, stderr=quiet)
    try:
        _await(process, ready)
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await(process: subprocess.Popen[bytes], url: str) -> None:
    for _ in range(500):
        if process.poll() is not None:
            raise Broken(f"{process.args!r} ended with status {process.returncode}")
        try:
            with urllib.request.urlopen(url, timeout=2):  # noqa: S310
                return
        except OSError:
            time.sleep(0.02)  # a foreign process: there is no event to wait for
    raise Broken(f"{process.args!r} does not answer on {url}")
