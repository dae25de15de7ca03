"""Every option from every place, which place wins, and one clear line for whatever is wrong."""

from __future__ import annotations

import argparse
import json
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edgeproxy import settings
from edgeproxy.__main__ import main
from edgeproxy.settings import OPTIONS, Address, SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

# Of each option: how it is written, and what comes of it. ``{here}`` is a directory that is there.
GOOD: dict[str, tuple[str, Any]] = {
    "origin": ("https://api.example:8443/", "https://api.example:8443"),
    "origin_host": ("API.example:8443", "api.example:8443"),
    "rules": ("{here}", "{here}"),
    "listen": ("0.0.0.0:80", Address("0.0.0.0", 80)),
    "admin": ("[::1]:9", Address("::1", 9)),
    "trusted_proxies": ("10.0.0.0/8, ::1", (ip_network("10.0.0.0/8"), ip_network("::1/128"))),
    "forwarded_fields": ("Forwarded, x-forwarded-for", frozenset({"forwarded", "x-forwarded-for"})),
    "trace_from": ("All", "all"),
    "proxy_protocol": ("10.1.0.0/16", (ip_network("10.1.0.0/16"),)),
    "tls_certificate": (
        "a.pem, /b/tls.crt:/b/tls.key",
        ((Path("a.pem"), Path("a.pem")), (Path("/b/tls.crt"), Path("/b/tls.key"))),
    ),
    "tls_client_ca": ("ca.pem", "ca.pem"),
    "admin_tls_certificate": ("a.pem", ((Path("a.pem"), Path("a.pem")),)),
    "admin_tls_client_ca": ("ca.pem", "ca.pem"),
    "allow": ("192.0.2.0/24", (ip_network("192.0.2.0/24"),)),
    "deny": ("2001:db8::/32,192.0.2.7", (ip_network("2001:db8::/32"), ip_network("192.0.2.7/32"))),
    "store": ("redis://cache:6379/2", "redis://cache:6379/2"),
    "store_password_file": ("{here}/token", "redis://:the-token@cache"),
    "cache_dir": ("{here}", "{here}"),
    "memory": ("1.5GiB", 1610612736),
    "store_size": ("10GB", 10_000_000_000),
    "store_budget": ("250ms", 0.25),
    "node": ("rack-7 (b)", "rack-7 (b)"),
    "l1_lease": ("5s", 5.0),
    "purge_wait": ("200ms", 0.2),
    "warm_start": ("off", False),
    "rule_history": ("0", 0),
    "workers": ("4", 4),
    "crash_limit": ("9", 9),
    "location": ("fra-1 (a)", "fra-1 (a)"),
    "name": ("edge.fra-1", "edge.fra-1"),
    "connect_timeout": ("1.5s", 1.5),
    "first_byte_timeout": ("2m", 120.0),
    "read_timeout": ("1h", 3600.0),
    "origin_connections": ("10", 10),
    "max_connections": ("50000", 50_000),
    "client_connections": ("0", 0),
    "unlimited_clients": ("", ()),
    "max_requests": ("9", 9),
    "max_lag": ("0", 0.0),
    "websockets": ("10000", 10_000),
    "max_body": ("0", 0),
    "max_head": ("32KiB", 32768),
    "head_timeout": ("4s", 4.0),
    "min_rate": ("1KiB", 1024),
    "keepalive": ("5", 5.0),
    "drain_delay": ("5s", 5.0),
    "drain_timeout": ("0s", 0.0),
    "drain_grace": ("500ms", 0.5),
    "access_log": ("off", "off"),
    "access_log_sample": ("0.25", 0.25),
    "otlp": ("http://collector:4318/otlp", "http://collector:4318/otlp"),
    "trace_sample": ("1", 1.0),
    "lane": ("off", False),
    "hide_fields": ("Via, age", frozenset({"via", "age"})),
    "show_fields": ("x-response-time", frozenset({"x-response-time"})),
    "admin_token_file": ("{here}/token", "the-token"),
    "read_token_file": ("{here}/token", "the-token"),
    "purge_rate": ("0", 0),
    "alerts": ("on", "on"),
    "log_level": ("DEBUG", "debug"),
}
FIELD = {
    "admin_token_file": "admin_token",
    "read_token_file": "read_token",
    "store_password_file": "store",
}
"""Options whose value is kept under another name."""
BESIDE = {"store_password_file": {"EDGEPROXY_STORE": "redis://cache"}}
"""What an option needs beside it, as variables."""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "token").write_text("the-token\n")
    return tmp_path


def loaded(
    flags: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None
) -> settings.Settings:
    given = {"origin": "http://o", **(flags or {})}
    return settings.load(given, {"HOME": "/nonexistent", **(environ or {})})


def test_every_option_is_tried_below() -> None:
    assert list(GOOD) == [option.name for option in OPTIONS]


@pytest.mark.parametrize("place", ["flag", "variable", "yaml", "toml"])
@pytest.mark.parametrize("name", GOOD)
def test_every_option_from_every_place(name: str, place: str, here: Path) -> None:
    written, expected = GOOD[name]
    written = written.format(here=here)
    flags: dict[str, Any] = {} if name == "origin" else {"origin": "http://o"}
    environ = {"HOME": "/nonexistent", **BESIDE.get(name, {})}
    match place:
        case "flag":
            parser = argparse.ArgumentParser()
            settings.add_flags(parser)
            given = parser.parse_args([f"--{name.replace('_', '-')}", written])
            flags = {**flags, **{k: v for k, v in vars(given).items() if v is not None}}
        case "variable":
            environ[f"EDGEPROXY_{name.upper()}"] = written
        case "yaml":
            flags["config"] = str(here / "config.yaml")
            (here / "config.yaml").write_text(f"{name.replace('_', '-')}: {json.dumps(written)}\n")
        case _:
            environ["EDGEPROXY_CONFIG"] = str(here / "config.toml")
            (here / "config.toml").write_text(f"{name} = {json.dumps(written)}\n")
    value = getattr(settings.load(flags, environ), FIELD.get(name, name))
    expected = expected.format(here=here) if isinstance(expected, str) else expected
    assert (str(value) if isinstance(value, Path) else value) == expected


def test_the_store_s_password_comes_from_one_place(here: Path) -> None:
    variable = {"EDGEPROXY_STORE_PASSWORD": "a/b@c"}
    assert loaded({"store": "redis://edge@cache/1"}, variable).store == "redis://edge:a%2Fb%40c@cache/1"
    assert settings.load_store({"store": "redis+cluster://a,b"}, variable) == "redis+cluster://:a%2Fb%40c@a,b"
    assert loaded({"store": "memory:"}, variable).store == "memory:", "it may be there for others"
    file = {"store_password_file": str(here / "token")}
    assert loaded({"store": "redis://cache", **file}, variable).store == "redis://:the-token@cache"
    for store, said in (("memory:", "only a redis store"), ("redis://:secret@cache", "a password already")):
        with pytest.raises(SettingsError, match=f"^--store-password-file: [^\n]*{said}") as refused:
            loaded({"store": store, **file})
        assert "secret" not in str(refused.value)
    with pytest.raises(SettingsError, match=r"^EDGEPROXY_STORE_PASSWORD: .*already"):
        loaded({"store": "redis://:secret@cache"}, variable)


def test_flag_over_variable_over_file_over_default(here: Path) -> None:
    config = here / "config.yaml"
    assert loaded().keepalive == 75
    config.write_text("keepalive: 1s")
    assert loaded({"config": str(config)}).keepalive == 1
    assert loaded({"config": str(config)}, {"EDGEPROXY_KEEPALIVE": "2s"}).keepalive == 2
    assert loaded({"config": str(config), "keepalive": "3s"}, {"EDGEPROXY_KEEPALIVE": "2s"}).keepalive == 3
    # The same for which file it is.
    other = here / "other.yaml"
    other.write_text("keepalive: 9s")
    assert loaded({"config": str(other)}, {"EDGEPROXY_CONFIG": str(config)}).keepalive == 9


def test_values_in_files_mean_what_is_written(here: Path) -> None:
    """YAML 1.1 takes off for false, 1:20 for 80 and 010 for 8; TOML has types of its own."""
    yaml = here / "config.yaml"
    yaml.write_text("access_log: off\nlisten: 1:20\nworkers: 010\nhide-fields: [via, age]\nlane: on\n")
    from_yaml = loaded({"config": str(yaml)})
    toml = here / "config.toml"
    toml.write_text(
        'access_log = false\nlisten = "1:20"\nworkers = 10\nhide-fields = ["via", "age"]\nlane = true\n'
    )
    for got in (from_yaml, loaded({"config": str(toml)})):
        assert (got.access_log, got.listen, got.workers, got.lane) == ("off", Address("1", 20), 10, True)
        assert got.hide_fields == {"via", "age"}


def test_defaults(tmp_path: Path) -> None:
    got = loaded()
    assert got.rules == settings.shipped_rules()
    assert (got.rules / "10-static.yaml").exists() or list(got.rules.glob("*.yaml"))
    assert got.store.startswith("lmdb:/nonexistent/.cache/edgeproxy/store-")
    assert got.origin_host == ""
    assert got.trusted_proxies == ()
    assert (got.max_connections, got.origin_connections) == (10_000, 256)
    assert (got.connect_timeout, got.first_byte_timeout) == (3, 10)
    assert got.admin.host == "127.0.0.1"
    assert got.admin_token is got.read_token is None
    assert loaded({"rules": "none"}).rules is None
    assert loaded({"cache_dir": "/c"}).store.startswith("lmdb:/c/store-")
    assert loaded({}, {"XDG_CACHE_HOME": "/x"}).cache_dir == Path("/x/edgeproxy")
    assert loaded({}, {"HOME": "/"}).cache_dir == Path("/var/cache/edgeproxy")


def test_the_default_store_is_of_one_origin() -> None:
    def store(origin: str, **flags: str) -> str:
        return loaded({"origin": origin, "cache_dir": "/c", **flags}).store

    assert store("http://a") == store("HTTP://a/")
    asked: list[tuple[str, dict[str, str]]] = []
    asked += [("http://a", {}), ("http://b", {}), ("https://a", {}), ("http://a:81", {}), ("unix:/a", {})]
    asked += [("http://a", {"origin_host": "one"}), ("http://a", {"origin_host": "two"})]
    assert len({store(origin, **flags) for origin, flags in asked}) == len(asked)
    assert store("http://a", store="lmdb:/mine") == store("http://b", store="lmdb:/mine") == "lmdb:/mine"


def test_several_origins() -> None:
    """Flags one after the other, or one value with commas; a comma in a socket's path is none between two."""
    parser = argparse.ArgumentParser()
    settings.add_flags(parser)
    words = ["--origin", "http://a:1/", "--origin", "https://b", "--origin", "http://a:1"]
    got = loaded(vars(parser.parse_args(words)))
    assert got.origins == ("http://a:1", "https://b")
    assert got.origin == "http://a:1,https://b"
    assert loaded({"origin": "unix:/run/a,b.sock,http://c, https://d"}).origins == (
        "unix:/run/a,b.sock",
        "http://c",
        "https://d",
    )
    with pytest.raises(SettingsError, match="expected a URL without a path"):
        loaded({"origin": "http://a,http://b/path"})


def test_an_origin_without_its_scheme() -> None:
    with pytest.raises(SettingsError) as refused:
        loaded({"origin": "localhost:9000"})
    assert str(refused.value) == (
        "--origin: 'localhost:9000': http:// is missing; expected a URL, such as http://localhost:9000"
    )


def test_doubts() -> None:
    """A warning each for what is hardly meant; none for what is, nor for what Kubernetes sets."""
    flags = {"origin": "http://o", "rules": "none"}
    ours = {"EDGEPROXY_LOCATION": "fra", "EDGEPROXY_READ_TOKEN": "x"}
    theirs = dict.fromkeys(("EDGEPROXY_SERVICE_HOST", "EDGEPROXY_PORT_8080_TCP_ADDR", "EDGEPROXY_PORT"), "")
    environ = {**ours, **theirs, "EDGEPROXY_ADMIN_TOKEN": "x", "HOME": "/nonexistent", "PATH": "/bin"}
    assert settings.doubts(flags, environ) == []
    assert settings.doubts(flags, {**environ, "EDGEPROXY_WORKER": "4", "EDGEPROXY_ZZZ": ""}) == [
        "EDGEPROXY_WORKER: no setting of edgeproxy, so it does nothing; did you mean EDGEPROXY_WORKERS?",
        "EDGEPROXY_ZZZ: no setting of edgeproxy, so it does nothing",
    ]
    says = "no --rules given: the shipped rules for the demo API are in force"
    told = [f"{says}; say --rules DIR for yours or --rules none"]
    assert settings.doubts({"origin": "http://o"}, {}) == told
    assert settings.doubts({"origin": "http://o"}, {"EDGEPROXY_RULES": ""}) == told
    assert settings.doubts({"origin": "http://o"}, {"EDGEPROXY_RULES": "none"}) == []
    assert settings.doubts({"origin": "http://o", "rules": str(settings.shipped_rules())}, {}) == []


WRONG: dict[str, list[str]] = {
    "origin": [
        "", "api.example", "ftp://a", "http://", "http://a/b", "http://a?b", "http://a#b", "http://u:p@a",
        "http://a:0", "http://a:65536", "http://a:b", "http://a b", "http://a\nb", "http://[::1", "unix:", "http:///",
    ],
    "origin_host": ["http://a", "a b", "a/b", "a:0", "a:65536", "a\r\nX: 1", "u@a", "\u00e9"],
    "trusted_proxies": ["10.0.0.1/8", "proxy.example", "10.0.0.0/33", "10.0.0.0/8;::1"],
    "forwarded_fields": ["x-real-ip", "forwarded;x-forwarded-for"],
    "trace_from": ["", "10.0.0.0/8", "on"],
    "rules": ["/no/such/directory", "/dev/null"],
    "listen": ["", "80", "a:", "a:b", "a:65536", "a:-1", "::1:80", "a b:80", "[::1:80", "a:\uff18\uff10"],
    "admin": ["127.0.0.1", "http://127.0.0.1:80"],
    "memory": ["", "big", "-1", "1XB", "1 0", "9" * 30, "1e3", "٣"],
    "store_size": ["0", "1KiB"],
    "max_head": ["0", "1023", "2MiB"],
    "max_body": ["1.MiB"],
    "store_budget": ["", "0", "fast", "-1s", "1y", "1 s s", "9" * 20],
    "l1_lease": ["0"],
    "purge_wait": ["0ms"],
    "connect_timeout": ["0ms"],
    "first_byte_timeout": ["0"],
    "read_timeout": ["0h"],
    "keepalive": ["0"],
    "drain_delay": ["later"],
    "drain_timeout": ["soon"],
    "drain_grace": ["brief"],
    "workers": ["0", "-1", "1.5", "many", "", "9" * 5000, "²"],
    "crash_limit": ["0"],
    "origin_connections": ["0"],
    "max_connections": ["none"],
    "websockets": ["0", "many"],
    "location": ["a\r\nX-Evil: 1", "caf\u00e9"],
    "name": ["", "two words", "1st", 'a"b', "a\n", "a/b", "a,b"],
    "access_log_sample": ["2", "-0.1", "nan", "half"],
    "otlp": ["collector:4318", "http://", "http://a b", "http://u@h", "ftp://h", "http://h/?a"],
    "trace_sample": ["2", "some"],
    "lane": ["fast"],
    "hide_fields": ["x-cache", "via;age"],
    "show_fields": ["everything"],
    "alerts": ["yes", "/nonexistent/alerts.yaml"],
    "log_level": ["loud"],
}  # fmt: skip


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in WRONG for value in WRONG[name]])
def test_a_wrong_value_is_one_line_that_says_where_and_what(name: str, value: str, here: Path) -> None:
    """By flag and by variable; the line is short whatever was given."""
    flag, variable = f"--{name.replace('_', '-')}", f"EDGEPROXY_{name.upper()}"
    flags: dict[str, Any] = {"origin": "http://o"}
    for where, given, environ in (
        (flag, {**flags, name: value}, {}),
        (variable, {k: v for k, v in flags.items() if k != name}, {variable: value}),
    ):
        with pytest.raises(SettingsError) as refused:
            settings.load(given, {"HOME": "/nonexistent", **environ})
        told = str(refused.value)
        assert told.startswith(f"{where}: ")
        assert "expected" in told
        assert told.isprintable()
        assert len(told) < 400


def test_a_wrong_value_in_a_file_names_the_file(here: Path) -> None:
    config = here / "config.yaml"
    config.write_text("workers: many")
    with pytest.raises(SettingsError, match=r"config\.yaml: workers: 'many': expected a whole number"):
        loaded({"config": str(config)})


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.yaml", b"orgin: http://a", "unknown key 'orgin'; did you mean origin?"),
        ("a.yaml", b"read_timeot: 1s", "unknown key 'read_timeot'; did you mean read-timeout?"),
        ("a.yaml", b"zzz: 1s", "unknown key 'zzz'; expected a flag of 'edgeproxy serve'"),
        ("a.yaml", b"- a", "expected flags and their values"),
        ("a.yaml", b"just words", "expected flags and their values"),
        ("a.yaml", b"a: [", "a.yaml"),
        ("a.yaml", b"\xff\xfe\x00", "a.yaml"),
        ("a.yaml", b"memory: {a: 1}", "memory: expected a single value"),
        ("a.yaml", b"hide_fields: [[via]]", "hide_fields: expected a single value"),
        ("a.yaml", b"? [a]\n: b", "a.yaml"),
        ("a.toml", b"memory = ", "a.toml"),
        ("a.toml", b"\xff", "a.toml"),
        ("a.toml", b"[memory]\na = 1", "memory: expected a single value"),
        ("a.toml", b"keepalive = 2024-01-01", "keepalive: expected a single value"),
        ("a.toml", b"admin_token = 'secret'", "unknown key 'admin_token'"),
    ],
)
def test_a_wrong_file_is_one_line(here: Path, name: str, content: bytes, says: str) -> None:
    (here / name).write_bytes(content)
    with pytest.raises(SettingsError) as refused:
        loaded({"config": str(here / name)})
    told = str(refused.value)
    assert says in told
    assert told.startswith("--config: ")
    assert "\n" not in told
    assert "secret" not in told


def test_files_that_cannot_be_read(here: Path) -> None:
    (here / "empty").write_text("\n")
    (here / "binary").write_bytes(b"\xff\xfe")
    for given, says in (
        ({"config": "/no/such.yaml"}, "--config: /no/such.yaml: No such file"),
        ({"config": str(here)}, "Is a directory"),
        ({"admin_token_file": "/no/such"}, "--admin-token-file: /no/such: No such file"),
        ({"admin_token_file": str(here / "empty")}, "the file is empty"),
        (
            {"read_token_file": str(here / "binary")},
            "--read-token-file: .*: expected a token, the file is not text",
        ),
    ):
        with pytest.raises(SettingsError, match=says):
            loaded(given)


def test_an_empty_file_says_nothing(here: Path) -> None:
    for name in ("a.yaml", "a.toml"):
        (here / name).write_text("# nothing yet\n")
        assert loaded({"config": str(here / name)}) == loaded()


def test_no_origin_is_said() -> None:
    with pytest.raises(SettingsError, match="--origin: missing; expected the URL of the API"):
        settings.load({}, {})


def test_tokens_from_files_go_before_the_environment(here: Path) -> None:
    environ = {"EDGEPROXY_ADMIN_TOKEN": "from-environment", "EDGEPROXY_READ_TOKEN": "reading"}
    got = loaded({}, environ)
    assert (got.admin_token, got.read_token) == ("from-environment", "reading")
    got = loaded({"admin_token_file": str(here / "token")}, environ)
    assert got.admin_token == "the-token"
    assert loaded({}, {"EDGEPROXY_ADMIN_TOKEN": ""}).admin_token is None


def test_secrets_are_never_shown() -> None:
    got = loaded(
        {"store": "redis://user:hunter2@cache:6379"},
        {"EDGEPROXY_ADMIN_TOKEN": "hunter2", "EDGEPROXY_READ_TOKEN": "hunter2"},
    )
    assert "hunter2" in got.store
    assert "hunter2" not in repr(got)
    for name, value in (("origin", "http://user:hunter2@a"), ("listen", "redis://:hunter2@a:80")):
        with pytest.raises(SettingsError) as refused:
            loaded({name: value})
        assert "hunter2" not in str(refused.value)


def test_no_flag_takes_a_secret(capsys: pytest.CaptureFixture[str]) -> None:
    """Flags are seen by everyone in ``ps``. Nor is one taken for another, which would print it."""
    with pytest.raises(SystemExit, match="2"):
        main(["serve", "--origin", "http://o", "--admin-token", "hunter2"])
    assert "unrecognized arguments: --admin-token" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("written", "back"),
    [("a:1", "a:1"), ("[::]:1", "[::]:1"), (":1", "0.0.0.0:1"), ("[fe80::1%eth0]:1", "[fe80::1%eth0]:1")],
)
def test_addresses_read_back(written: str, back: str) -> None:
    assert str(settings.address(written)) == back


def test_as_many_workers_as_cpus_unless_they_could_share_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "usable_cpus", lambda: 5)
    assert loaded().workers == loaded({"workers": "auto"}).workers == 5
    assert loaded({"store": "redis://r"}).workers == 5
    assert (
        loaded({"store": "memory:"}).workers == loaded({"store": "memory:", "workers": "auto"}).workers == 1
    )
    assert loaded({"store": "memory:", "workers": "3"}).workers == 3
