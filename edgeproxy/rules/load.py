"""Rule files -> RuleSet, or RuleError with everything that is wrong, each with file:line.

Rules of this file:

- Files are read in name order, rules in file order; ``defaults`` of a file lies beneath each of its rules.
- Rule files are hostile input: size, number and nesting are bounded before anything is made of them.
- All or nothing: a RuleSet comes out only if every file, every rule and every example holds. Whoever
  reloads keeps the old RuleSet when this raises.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from edgeproxy.rules.build import build_rule
from edgeproxy.rules.document import MAX_BYTES, Mapping, Node, Sequence, at, describe, merged, parse
from edgeproxy.rules.examples import check_examples
from edgeproxy.rules.keys import DEFAULTS, RULE
from edgeproxy.rules.kinds import WRONG
from edgeproxy.rules.model import Rule, RuleSet, WarmUp
from edgeproxy.rules.pool_keys import Use, check_pools, read_pools
from edgeproxy.rules.problems import Problem, Problems, RuleError, did_you_mean, quoted, raise_all
from edgeproxy.rules.warm import read_warm_ups

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from edgeproxy.rules.pools import PoolSpec

MAX_FILES = 1000
MAX_TOTAL = 64 * 1024 * 1024
MAX_RULES = 100_000
_SUFFIXES = (".yaml", ".yml")
_SECTIONS = ("defaults", "rules", "pools", "warm")


def load_rules(directory: Path, *, examples: bool = True, paths: bool = False) -> RuleSet:
    """All ``*.yaml`` and ``*.yml`` of a directory, or one file. ``paths``: places are told with the directory
    before the file's name. Raises RuleError."""
    return load_bytes(read_files(directory, paths=paths), source=str(directory), examples=examples)


def read_files(directory: Path, *, paths: bool = False) -> list[tuple[str, bytes]]:
    """(name, octets) of each file that ``load_rules`` would load, in order. Raises RuleError."""
    try:
        single = directory.is_file()
        names = [directory] if single else sorted(
            (p for p in directory.iterdir() if p.suffix in _SUFFIXES and not p.name.startswith(".")),
            key=lambda p: p.name,
        )  # fmt: skip
    except OSError as error:
        raise _refused(str(directory), f"cannot be read: {error.strerror}") from None
    if not names:
        raise _refused(str(directory), "no rule files: expected *.yaml or *.yml")
    if len(names) > MAX_FILES:
        raise _refused(str(directory), f"{len(names)} rule files; at most {MAX_FILES}")
    gathered: list[Problems] = []
    files: list[tuple[str, bytes]] = []
    total = 0
    for path in names:
        out = Problems(str(path) if paths else path.name)
        octets = _read(path, out)
        total += len(octets)
        files.append((out.file, octets))
        gathered.append(out)
        if total > MAX_TOTAL:
            raise _refused(str(directory), f"rule files of more than {MAX_TOTAL // 1024**2} MiB together")
    raise_all(gathered)
    return files


def load_text(text: str, name: str = "rules.yaml", *, examples: bool = True) -> RuleSet:
    """One file's text, under ``name``. Raises RuleError."""
    return load_bytes([(name, text.encode("utf-8", "surrogatepass"))], source=name, examples=examples)


def load_bytes(files: Iterable[tuple[str, bytes]], *, source: str, examples: bool = True) -> RuleSet:
    """(name, octets) of each file, in order. Raises RuleError."""
    files = list(files)
    gathered: list[Problems] = []
    rules: list[Rule] = []
    pools: list[PoolSpec] = []
    uses: list[Use] = []
    warm: list[WarmUp] = []
    for name, octets in files:
        out = Problems(name)
        gathered.append(out)
        rules.extend(_file(octets, out, pools, uses, warm))
        if len(rules) > MAX_RULES:
            raise _refused(name, f"more than {MAX_RULES} rules")
    _check_names(rules, gathered)
    check_pools(pools, uses, {out.file: out for out in gathered})
    raise_all(gathered)
    made = RuleSet(tuple(rules), version_of(files), source, tuple(pools), tuple(warm))
    if examples:
        failures = check_examples(made)
        if failures:
            raise RuleError(failures)
    return made


def version_of(files: Iterable[tuple[str, bytes]]) -> str:
    """A short digest of the files' names and octets, in order: what ``RuleSet.version`` will be."""
    digest = hashlib.sha256()
    for name, octets in files:
        digest.update(f"{len(name)}:{name}{len(octets)}:".encode() + octets)
    return digest.hexdigest()[:12]


def _refused(file: str, message: str) -> RuleError:
    return RuleError([Problem(file, 0, 0, "", message)])


def _read(path: Path, out: Problems) -> bytes:
    try:
        if not path.is_file():
            out.add(None, "", "expected a plain file")
            return b""
        with path.open("rb") as stream:
            octets = stream.read(MAX_BYTES + 1)
    except OSError as error:
        out.add(None, "", f"cannot be read: {error.strerror}")
        return b""
    if len(octets) > MAX_BYTES:
        out.add(None, "", f"larger than {MAX_BYTES // 1024**2} MiB: split it")
    return octets


def _file(
    octets: bytes, out: Problems, pools: list[PoolSpec], uses: list[Use], warm: list[WarmUp]
) -> list[Rule]:
    """The rules; what is under ``pools`` and ``warm`` is put into these, and where pools are named."""
    if len(octets) > MAX_BYTES:
        out.add(None, "", f"larger than {MAX_BYTES // 1024**2} MiB: split it")
        return []
    try:
        text = octets.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        out.add(None, "", f"not UTF-8 (octet {error.start})")
        return []
    root = parse(text, out)
    if root is None:
        if not len(out):
            out.add(None, "", "empty: expected rules: [...]")
        return []
    if not isinstance(root, Mapping):
        out.add(root, "", f"expected a mapping with the key rules, got {describe(root)}")
        return []
    for key, _ in root.pairs:
        if key.text not in _SECTIONS:
            hint = did_you_mean(key.text, _SECTIONS) or f"; known are {', '.join(_SECTIONS)}"
            out.add(key, key.text, f"unknown key {quoted(key.text)}{hint}")
    section = root.get("pools")
    if section is not None:
        pools.extend(read_pools(section, out, uses))
    defaults = root.get("defaults")
    if defaults is not None and DEFAULTS.read(defaults, "defaults", out) is WRONG:
        defaults = None
    ups = root.get("warm")
    if ups is not None:
        warm.extend(read_warm_ups(ups, out))
    rules = root.get("rules")
    if rules is None and not (section is None and ups is None):
        return []
    if not isinstance(rules, Sequence) or not rules.items:
        got = (
            "nothing"
            if rules is None
            else "an empty list"
            if isinstance(rules, Sequence)
            else describe(rules)
        )
        out.add(rules or root, "rules", f"expected a list of rules, got {got}")
        return []
    made = [_rule(node, defaults, f"rules[{i}]", out, uses) for i, node in enumerate(rules.items)]
    return [rule for rule in made if rule is not None]


def _rule(node: Node, defaults: Node | None, key: str, out: Problems, uses: list[Use]) -> Rule | None:
    if isinstance(node, Mapping) and isinstance(defaults, Mapping):
        node = merged(defaults, node)
    before = len(out)
    read = RULE.read(node, key, out)
    if read is WRONG or len(out) > before or not {"name", "match"} <= read.keys():
        return None
    if "origin" in read:
        uses.append(Use(read["origin"], at(node, "origin", default=node), f"{key}.origin", out))
    return build_rule(read, at(node, default=node), key, out)


def _check_names(rules: list[Rule], gathered: list[Problems]) -> None:
    first: dict[str, Rule] = {}
    by_file = {out.file: out for out in gathered}
    for rule in rules:
        other = first.setdefault(rule.name, rule)
        if other is not rule:
            file, _, line = rule.at.rpartition(":")
            place = _Line(int(line))
            by_file[file].add(
                place, "name", f"{quoted(rule.name)} is the name of the rule at {other.at} already"
            )


class _Line:
    def __init__(self, line: int) -> None:
        self.line = line
        self.column = 1
