"""The command as a whole: help, versions, and ``serve`` that cannot begin."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from edgeproxy import __version__, settings
from edgeproxy.__main__ import COMMANDS
from edgeproxy.cli import demo
from edgeproxy.settings import Address
from tests.support.origins import ROOT
from tests.support.zygote import zygote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.cli.conftest import Done
    from tests.support.zygote import Zygote

    Run = Callable[..., Done]
    Written = Callable[..., Path]

NAMES = [command.__name__.rpartition(".")[2] for command in COMMANDS]


@pytest.fixture(scope="module")
def shell() -> Iterator[Zygote]:
    """As from a shell, in an environment without settings."""
    with zygote() as running:
        yield running


def test_version_and_help(run: Run) -> None:
    assert run("--version") == (0, f"edgeproxy {__version__}\n", "")
    done = run("--help")
    assert done.code == 0
    for name in NAMES:
        assert re.search(rf"\n    {name}\s", done.out)


@pytest.mark.parametrize("name", NAMES)
def test_the_help_of_each_command_stands_alone(run: Run, name: str) -> None:
    done = run(name, "--help")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"usage: edgeproxy {name} ")
    assert len(done.out.partition("\n\n")[2]) > 100


def test_serve_tells_all_its_flags(run: Run) -> None:
    shown = run("serve", "--help").out
    for option in settings.OPTIONS:
        assert f"{option.flag} " in shown
        assert option.metavar in shown


def test_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edgeproxy", "--version"],
        cwd=ROOT, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, f"edgeproxy {__version__}\n", "")


WRONG: dict[str, tuple[tuple[str, ...], str]] = {
    "another command": (("server",), "invalid choice: 'server'"),
    "another flag": (("serve", "--colour", "red"), "unrecognized arguments: --colour red"),
    "a flag cut short": (("serve", "--ori", "http://a"), "unrecognized arguments"),
    "a flag without its value": (("serve", "--origin"), "argument --origin: expected one argument"),
    "no origin": (("serve",), "--origin: missing"),
    "an origin that is none": (
        ("serve", "--origin", "nowhere"),
        "--origin: 'nowhere': http:// is missing; expected a URL",
    ),
    "an origin with a path": (("serve", "--origin", "http://a/b"), "--origin: 'http://a/b': expected a URL"),
    "no such rules": (
        ("serve", "--origin", "http://a", "--rules", "/no"),
        "--rules: '/no': expected a directory",
    ),
    "a size": (("serve", "--origin", "http://a", "--memory", "big"), "--memory: 'big': expected a size"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_usage_is_one_line_and_exit_2(run: Run, case: str) -> None:
    words, says = WRONG[case]
    done = run(*words)
    assert (done.code, done.out) == (2, "")
    assert says in done.err
    assert done.err.startswith("edgeproxy")
    assert done.err.count("\n") == 1


MISSPELT = {
    "a letter left out": (("serve", "--orgin", "http://a"), "serve", "--orgin http://a", "--origin"),
    "with its value": (("serve", "--origin", "http://a", "--listn=:80"), "serve", "--listn=:80", "--listen"),
    "cut short": (("serve", "--ori", "http://a"), "serve", "--ori http://a", "--origin"),
    "as in a variable": (("serve", "--origin_host", "a"), "serve", "--origin_host a", "--origin-host"),
    "one dash": (("check", "-strict"), "check", "-strict", "--strict"),
    "two of them": (("check", "--strct", "--lgo", "a"), "check", "--strct --lgo", "--strict, --log"),
    "and so another is missing": (("purge", "--tga", "a"), "purge", "--tga", "--tag"),
    "of an action": (("baseline", "record", "f", "--leest=3"), "baseline record", "--leest=3", "--least"),
    "one of two": (("check", "--strct", "--colour"), "check", "--strct --colour", "--strict for --strct"),
    "of no command": (("--versoin",), "", "--versoin", "--version"),
}


@pytest.mark.parametrize("case", MISSPELT)
def test_a_misspelt_flag_is_told_with_the_one_that_was_meant(run: Run, case: str) -> None:
    words, command, given, meant = MISSPELT[case]
    said = f"{f'edgeproxy {command}'.strip()}: unrecognized arguments: {given}; did you mean {meant}?\n"
    assert run(*words) == (2, "", said)


def test_what_is_no_flag_is_not_taken_for_a_misspelt_one(run: Run) -> None:
    said = "edgeproxy serve: unrecognized arguments: --colour red; see 'edgeproxy serve --help'\n"
    assert run("serve", "--colour", "red") == (2, "", said)
    assert "did you mean" not in run("check", "a", "--", "--strct").err
    assert "did you mean" not in run("explain", "/a", "-H", "--strct: 1", "-Xget", "--status", "no").err
    assert "did you mean" not in run("completion", "--shel").err
    assert "did you mean" not in run("serber", "--versoin").err


def test_an_address_of_the_demo_is_taken_or_none(run: Run) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for flag, given in (
            ("--listen", f"127.0.0.1:{port}"), ("--admin", f"0.0.0.0:{port}"), ("--origin-port", str(port)),
        ):  # fmt: skip
            place = f"127.0.0.1:{given}" if flag == "--origin-port" else given
            said = f"{flag}: {place}: address already in use; give another one, or 0 for any that is free"
            assert run("demo", flag, given) == (2, "", f"edgeproxy: {said}\n")
    for words, says in (
        (("--listen", "8080"), "--listen: '8080': expected HOST:PORT"),
        (("--listen", "a..b:80"), "--listen: 'a..b:80': no host has such a name"),
        (("--origin-port", "0000099999"), "--origin-port: '0000099999': expected a port, such as 8090"),
        (("--origin-port", "70000"), "--origin-port: '70000': expected a port, such as 8090"),
        (
            ("--listen", "127.0.0.1:1234", "--admin", "127.0.0.1:1234"),
            "--admin: 127.0.0.1:1234: the port is given twice",
        ),
        (
            (
                "--listen",
                "192.0.2.1:1234",
            ),
            "--listen: 192.0.2.1:1234: cannot assign requested address",
        ),
    ):
        done = run("demo", *words)
        assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
        assert says in done.err


@pytest.mark.parametrize(
    ("one", "other", "collide"),
    [
        ("127.0.0.1", "127.0.0.2", False),
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "0.0.0.0", True),
        ("::", "127.0.0.1", True),
        ("localhost", "127.0.0.1", True),
    ],
)
def test_a_port_of_the_demo_is_given_twice_where_the_hosts_meet(
    one: str, other: str, *, collide: bool
) -> None:
    for port, met in ((9000, collide), (0, False)):
        assert demo._collide(Address(one, port), Address(other, port)) is met
    assert not demo._collide(Address(one, 9000), Address(one, 9001))


def test_without_a_command_the_whole_help_is_shown(run: Run) -> None:
    done = run()
    assert (done.code, done.out) == (2, "")
    assert done.err == run("--help").out


HEAVY = ("aiohttp", "uvloop", "yaml", "lmdb", "redis", "aiocache", "msgspec", "asyncio", "edgeproxy.rules")


@pytest.mark.parametrize("words", [["--version"], ["--help"], ["serve", "--help"]])
def test_help_is_cheap(words: list[str]) -> None:
    """What a command works with is imported when it runs."""
    program = (
        "import sys\nfrom edgeproxy.__main__ import main\n"
        f"try:\n    main({words!r})\nexcept SystemExit:\n    pass\n"
        f"print('loaded', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.splitlines()[-1] == "loaded []"


STORES = [
    "redis",
    "mysql://a",
    "lmdb:",
    "redis://",
    "redis://a/b",
    "memcached://a/b",
    "redis://:hunter2@a:99999",
]


@pytest.mark.parametrize("store", STORES)
def test_a_store_that_is_none(shell: Zygote, tmp_path: Path, store: str) -> None:
    done = shell.run(
        "serve", "--origin", "http://127.0.0.1:1", "--rules", "none", "--store", store,
        "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", cache=tmp_path,
    )  # fmt: skip
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("edgeproxy: --store: ")
    assert done.err.count("\n") == 1
    assert "hunter2" not in done.err


@pytest.mark.parametrize("flag", ["--listen", "--admin"])
def test_an_address_in_use(shell: Zygote, tmp_path: Path, flag: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        addresses = {"--listen": "127.0.0.1:0", "--admin": "127.0.0.1:0", flag: f"127.0.0.1:{port}"}
        done = shell.run(
            "serve", "--origin", "http://127.0.0.1:1", "--rules", "none", "--store", "memory:",
            *(word for pair in addresses.items() for word in pair), cache=tmp_path,
        )  # fmt: skip
    assert done.code == 2
    assert done.err == f"edgeproxy: {flag}: 127.0.0.1:{port}: Address already in use\n"


def test_rules_that_are_wrong(shell: Zygote, tmp_path: Path, written: Written) -> None:
    directory = written(a="rules:\n  - {name: a, match: {path: /a}, ttl: soon}\n")
    done = shell.run(
        "serve", "--origin", "http://127.0.0.1:1", "--rules", str(directory), "--store", "memory:",
        "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", cache=tmp_path,
    )  # fmt: skip
    assert done.code == 2
    first, second = done.err.splitlines()
    assert first == "edgeproxy: the rules are refused:"
    assert second.startswith("a.yaml:2:")


def test_an_admin_port_that_others_reach_needs_a_token(shell: Zygote, tmp_path: Path) -> None:
    done = shell.run(
        "serve", "--origin", "http://127.0.0.1:1", "--rules", "none", "--store", "memory:",
        "--listen", "127.0.0.1:0", "--admin", "0.0.0.0:0", cache=tmp_path,
    )  # fmt: skip
    assert done.code == 2
    assert done.err.startswith("edgeproxy: --admin: the admin port on 0.0.0.0 could be reached by others")
    assert done.err.count("\n") == 1


def test_a_reader_that_has_had_enough_is_no_error() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "edgeproxy", "check", "--schema"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    with process.stderr:
        assert process.stderr.read() == ""
    assert process.wait(20) == 1
