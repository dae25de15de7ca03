"""The import table: which part may know which, and which names live in one file.

Rules of this file: everything is read from the syntax tree, so imports for type checking count too; a
module that the table does not place is an error. The checker is itself checked, at the end.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache, lru_cache
from pathlib import Path

import pytest

Rule = Callable[[str, ast.Module], Iterator[tuple[int, str]]]

PACKAGE = Path(__file__).resolve().parents[1] / "edgeproxy"

LAYERS: tuple[tuple[str, ...], ...] = (
    ("edgeproxy.value",),
    ("edgeproxy.policy", "edgeproxy.clock", "edgeproxy.networks", "edgeproxy.cpus", "edgeproxy.descriptors"),
    ("edgeproxy.rules", "edgeproxy.key", "edgeproxy.observe.trace"),
    ("edgeproxy.store", "edgeproxy.cluster", "edgeproxy.origin"),
    ("edgeproxy.engine",),
    ("edgeproxy.warm", "edgeproxy.earned"),
    ("edgeproxy.front", "edgeproxy.admin", "edgeproxy.observe", "edgeproxy.settings"),
    ("edgeproxy.alerting",),
    ("edgeproxy.app", "edgeproxy.operate", "edgeproxy.from_settings", "edgeproxy.telemetry"),
    (
        "edgeproxy.systemd",
        "edgeproxy.config_copy",
        "edgeproxy.rolling",
        "edgeproxy.collector",
        "edgeproxy.heap",
        "edgeproxy.worker_process",
        "edgeproxy.starved",
        "edgeproxy.child",
        "edgeproxy.supervisor",
        "edgeproxy.cli",
        "edgeproxy.demo",
        "edgeproxy.templates",
    ),
    ("edgeproxy.__main__",),
)
"""From the inside out: a module imports from its own layer and from those before it."""

INNERMOST = ("edgeproxy.policy", "edgeproxy.clock")
"""These two do not even know each other; how values are made they may."""

AIOHTTP = ("edgeproxy.front", "edgeproxy.origin", "edgeproxy.admin", "edgeproxy.demo")

PORTS = {
    "edgeproxy.cluster.base",
    "edgeproxy.store.base", "edgeproxy.store.entry", "edgeproxy.store.packed", "edgeproxy.store.purge",
    "edgeproxy.origin.base", "edgeproxy.origin.arrived",
}  # fmt: skip
"""What the engine may see of the stores and the origin: types and values, no backend and no socket."""

ONE_FILE = {"aiocache": 1, "lmdb": 1, "http_sf": 1}
"""Packages that at most so many files may import."""

IMPURE = {"asyncio", "time", "logging", "os", "socket", "threading", "subprocess", "random", "secrets"}
"""Of the standard library, what a pure module has no use for."""

BANNED_MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle"}
BANNED_CALLS = {"eval", "exec", "__import__"}

HOMES = {
    "create_task": "edgeproxy.engine.background",
    "ensure_future": "edgeproxy.engine.background",
    "TaskGroup": "edgeproxy.engine.background",
    "environ": "edgeproxy.settings",
    "getenv": "edgeproxy.settings",
}
"""Names that one module alone may use, as an attribute or imported from os or asyncio."""

MODULE_HOMES = {"time": "edgeproxy.clock"}
CLOCK_METHODS = {"now", "utcnow", "today"}
"""Of datetime and date: they read the clock too."""


def test_imports_go_one_way() -> None:
    assert report(layer_violations) == []


def test_each_module_has_its_place() -> None:
    assert [name for name in modules() if name != "edgeproxy" and layer(name) is None] == []


def test_policy_is_pure() -> None:
    assert report(purity_violations) == []


def test_the_engine_sees_ports_only() -> None:
    assert report(port_violations) == []


def test_packages_are_imported_where_they_belong() -> None:
    assert report(aiohttp_violations) == []
    for package, most in ONE_FILE.items():
        users = [n for n, tree in modules().items() if any(_top(t) == package for t, _ in imports(n, tree))]
        assert len(users) <= most, f"{package}: {users}"


def test_names_live_in_their_one_file() -> None:
    assert report(home_violations) == []


def test_nothing_is_unpickled_or_evaluated() -> None:
    assert report(danger_violations) == []


WITHOUT = {
    "": (
        "lmdb",
        "aiocache",
        "redis",
        "aiomcache",
        "edgeproxy.cluster.bus",
        "opentelemetry",
        "cryptography",
        "rich",
        "shtab",
        "importlib.metadata",
        "statistics",
        "difflib",
        "sqlite3",
        "multiprocessing",
        "unittest",
    ),
    "edgeproxy.store.lmdb_backend": ("redis", "aiomcache", "aiocache.backends.redis"),
    "edgeproxy.store.memcached_backend": ("redis", "lmdb", "aiocache.backends.redis"),
}
"""What is opened besides a worker -> what must not have been imported for it."""

LOADED = """
import importlib, json, os, sys
import edgeproxy.supervisor, edgeproxy.worker_process
for opened, absent in json.loads(sys.argv[1]).items():
    child = os.fork()
    if not child:
        if opened:
            importlib.import_module(opened)
        print(json.dumps([opened, [name for name in absent if name in sys.modules]]), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""


def test_a_start_imports_what_it_needs_alone() -> None:
    """Each costs every start; the client of Redis a sixth of it."""
    ran = subprocess.run(
        [sys.executable, "-c", LOADED, json.dumps(WITHOUT)], capture_output=True, text=True, check=True
    )
    assert [json.loads(line) for line in ran.stdout.splitlines()] == [[opened, []] for opened in WITHOUT]


@cache
def modules() -> dict[str, ast.Module]:
    """Give every module of the package: dotted name -> syntax tree."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = ("edgeproxy", *path.relative_to(PACKAGE).with_suffix("").parts)
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(), str(path))
    return found


@lru_cache(maxsize=1024)
def nodes(tree: ast.Module) -> list[ast.AST]:
    """All of a module, once: each rule looks through every one of them."""
    return list(ast.walk(tree))


def imports(name: str, tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Give what the module imports, as dotted names of modules, with the line."""
    for node in nodes(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                # A package's own name counts as its first level; a module's does not.
                parts = name.split(".") if _is_package(name) else name.split(".")[:-1]
                base = ".".join([*parts[: len(parts) - node.level + 1], *([base] if base else [])])
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                yield (whole if whole in modules() else base), node.lineno


def layer(name: str) -> int | None:
    """Which layer the module is in, by the longest part of its name that the table has."""
    places = {entry: number for number, entries in enumerate(LAYERS) for entry in entries}
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        place = places.get(".".join(parts[:length]))
        if place is not None:
            return place
    return None


def layer_violations(name: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    own = layer(name)
    for target, line in imports(name, tree):
        if not target.startswith("edgeproxy.") or own is None:
            continue
        theirs = layer(target)
        if theirs is None or theirs > own:
            yield line, f"imports {target}, which is further out"
        for inner in INNERMOST:
            if _within(name, inner) and not _within(target, inner) and target != "edgeproxy.value":
                yield line, f"imports {target}, but {inner} knows nothing of the rest"


def port_violations(name: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    if not _within(name, "edgeproxy.engine"):
        return
    for target, line in imports(name, tree):
        behind = any(_within(target, p) for p in ("edgeproxy.store", "edgeproxy.origin", "edgeproxy.cluster"))
        if behind and target not in PORTS:
            yield line, f"imports {target}, which is no port"


def purity_violations(name: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    if not _within(name, "edgeproxy.policy"):
        return
    for target, line in imports(name, tree):
        top = _top(target)
        if top in {"edgeproxy", "http_sf"}:
            continue
        if top not in sys.stdlib_module_names or top in IMPURE:
            yield line, f"imports {target}, but policy is pure"


def aiohttp_violations(name: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    for target, line in imports(name, tree):
        if _top(target) == "aiohttp" and not any(_within(name, place) for place in AIOHTTP):
            yield line, "imports aiohttp"


def home_violations(name: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    for target, line in imports(name, tree):
        home = MODULE_HOMES.get(_top(target))
        if home is not None and home != name:
            yield line, f"imports {target}, which only {home} does"
    for node in nodes(tree):
        for used in _names(node):
            if used in HOMES and HOMES[used] != name:
                yield getattr(node, "lineno", 0), f"uses {used}, which only {HOMES[used]} does"
        if (
            isinstance(node, ast.Attribute)
            and node.attr in CLOCK_METHODS
            and isinstance(node.value, ast.Name | ast.Attribute)
            and _last(node.value) in {"datetime", "date"}
        ):
            yield node.lineno, f"uses {_last(node.value)}.{node.attr}, which reads the clock"


def danger_violations(name: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    for target, line in imports(name, tree):
        if _top(target) in BANNED_MODULES:
            yield line, f"imports {target}"
    for node in nodes(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in BANNED_CALLS:
            yield node.lineno, f"calls {node.func.id}"


def report(rule: Rule) -> list[str]:
    return [f"{name}:{line}: {what}" for name, tree in modules().items() for line, what in rule(name, tree)]


def _is_package(name: str) -> bool:
    return any(other.startswith(f"{name}.") for other in modules())


def _names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Attribute):
        return [node.attr]
    if isinstance(node, ast.ImportFrom) and _top(node.module or "") in {"os", "asyncio"}:
        return [alias.name for alias in node.names]
    return []


def _last(node: ast.Name | ast.Attribute) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr


def _top(target: str) -> str:
    return target.partition(".")[0]


def _within(name: str, place: str) -> bool:
    return name == place or name.startswith(f"{place}.")


@pytest.mark.parametrize(
    ("rule", "name", "source"),
    [
        (layer_violations, "edgeproxy.store.x", "from edgeproxy.engine.handle import handle"),
        (layer_violations, "edgeproxy.store.x", "from edgeproxy.observe import metrics"),
        (layer_violations, "edgeproxy.rules.x", "import edgeproxy.store.base"),
        (layer_violations, "edgeproxy.policy.x", "from edgeproxy.rules.model import Rule"),
        (layer_violations, "edgeproxy.policy.x", "from edgeproxy.clock import Clock"),
        (layer_violations, "edgeproxy.policy.x", "if TYPE_CHECKING:\n    from edgeproxy.key import CacheKey"),
        (layer_violations, "edgeproxy.engine.x", "from ..front import respond"),
        (port_violations, "edgeproxy.engine.x", "from edgeproxy.origin.pool import Pool"),
        (purity_violations, "edgeproxy.policy.x", "import asyncio"),
        (purity_violations, "edgeproxy.policy.x", "from os import path"),
        (purity_violations, "edgeproxy.policy.x", "def f():\n    import msgspec"),
        (aiohttp_violations, "edgeproxy.engine.x", "import aiohttp"),
        (aiohttp_violations, "edgeproxy.cli.x", "from aiohttp.web import Application"),
        (home_violations, "edgeproxy.store.x", "import time"),
        (home_violations, "edgeproxy.store.x", "from time import monotonic"),
        (home_violations, "edgeproxy.store.x", "loop.create_task(work())"),
        (home_violations, "edgeproxy.store.x", "from asyncio import ensure_future"),
        (home_violations, "edgeproxy.cli.x", "import os\nos.environ['A']"),
        (home_violations, "edgeproxy.cli.x", "from os import getenv"),
        (home_violations, "edgeproxy.store.x", "import datetime\ndatetime.datetime.now()"),
        (danger_violations, "edgeproxy.store.x", "import pickle"),
        (danger_violations, "edgeproxy.store.x", "from marshal import loads"),
        (danger_violations, "edgeproxy.rules.x", "eval('1')"),
    ],
)
def test_the_checker_sees(rule: Rule, name: str, source: str) -> None:
    assert list(rule(name, ast.parse(source)))


@pytest.mark.parametrize(
    ("rule", "name", "source"),
    [
        (layer_violations, "edgeproxy.store.x", "from edgeproxy.observe.trace import Trace"),
        (layer_violations, "edgeproxy.store.x", "from edgeproxy.observe import trace"),
        (layer_violations, "edgeproxy.engine.x", "from edgeproxy.store.base import Store"),
        (layer_violations, "edgeproxy.policy.x", "from edgeproxy.policy.head import Headers"),
        (port_violations, "edgeproxy.engine.x", "from edgeproxy.origin.base import Origin"),
        (purity_violations, "edgeproxy.policy.x", "import re\nfrom http_sf import parse"),
        (aiohttp_violations, "edgeproxy.front.x", "import aiohttp"),
        (home_violations, "edgeproxy.clock", "import time"),
        (home_violations, "edgeproxy.store.x", "clock.now()"),
        (home_violations, "edgeproxy.cli.x", "def f(environ):\n    return environ['HOME']"),
        (danger_violations, "edgeproxy.rules.x", "import re\nre.compile('a')\npattern.exec"),
    ],
)
def test_the_checker_allows(rule: Rule, name: str, source: str) -> None:
    assert list(rule(name, ast.parse(source))) == []
