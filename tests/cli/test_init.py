"""``edgeproxy init``: what it writes is read as those read it whom it is for.

Rules of this file: every command line among the templates goes through our own parser and settings, every
rule file through the loader; what other programs can check, they check where they are at hand
(systemd-analyze, kubectl).
"""

from __future__ import annotations

import configparser
import shlex
import shutil
import stat
import subprocess
import tomllib
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from packaging.requirements import Requirement

from edgeproxy import __version__, settings
from edgeproxy.__main__ import make_parser
from edgeproxy.rules.load import load_rules
from edgeproxy.templates.write import HERE, KINDS, from_inside, write
from tests.support.origins import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.cli.conftest import Done

    Run = Callable[..., Done]

NAMES = [kind.name for kind in KINDS]
VARIABLES = {option.variable for option in settings.OPTIONS} | set(settings.BESIDE)


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str], Path]:
    def make(name: str) -> Path:
        directory = tmp_path / name
        write(directory, next(kind for kind in KINDS if kind.name == name))
        return directory

    return make


def accepted(words: list[str], environ: Mapping[str, str], here: Path) -> settings.Settings:
    """The settings that ``edgeproxy WORDS`` would run with; paths in a container are those ``here``."""
    places = {"/etc/edgeproxy": str(here), "/run/secrets/edgeproxy": str(here)}
    for there, path in places.items():
        words = [word.replace(there, path) for word in words]
    assert set(environ) <= VARIABLES, environ
    args = make_parser().parse_args(words)
    assert settings.doubts(vars(args), environ) == []
    return settings.load(vars(args), environ)


def localised(config: Path, here: Path) -> None:
    config.write_text(config.read_text().replace("/etc/edgeproxy", str(here)))


@pytest.mark.parametrize("name", NAMES)
def test_all_is_written_or_nothing(run: Run, tmp_path: Path, name: str) -> None:
    flags = [] if name == "plain" else [f"--{name}"]
    directory = tmp_path / "out"
    done = run("init", str(directory), *flags, "--origin", "http://10.0.0.9:81")
    assert (done.code, done.err) == (0, "")
    files = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    assert all(str(path) in done.out for path in files)
    told = b"".join(files.values())
    assert b"http://10.0.0.9:81" in told
    assert not [line for line in told.decode().splitlines() if "@" in line and "@system" not in line
                and "~@priv" not in line and "@redis:" not in line]  # fmt: skip
    assert load_rules(directory / "rules").rules

    again = run("init", str(directory), *flags)
    assert again.code == 1
    assert "nothing was written" in again.err
    assert {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()} == files
    assert run("init", str(directory), *flags, "--force").code == 0
    assert b"http://10.0.0.9:81" not in b"".join(p.read_bytes() for p in directory.rglob("*.*"))


def test_what_cannot_be_is_one_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.yaml").write_text("rules: [{name: a, ttl: soon}]")
    (tmp_path / "file").touch()
    for words, code, says in (
        (["--origin", "10.0.0.9"], 2, "--origin: '10.0.0.9': http:// is missing"),
        (["--rules", str(tmp_path / "bad")], 1, "a.yaml:1"),
        (["--systemd", "--compose"], 2, "not allowed with"),
    ):
        done = run("init", str(tmp_path / "out"), *words)
        assert done.code == code
        assert says in done.err
    done = run("init", str(tmp_path / "file"))
    assert done.code == 1
    assert "Traceback" not in done.err
    assert not (tmp_path / "out").exists()


def test_own_rules_come_along(run: Run, tmp_path: Path) -> None:
    done = run("init", str(tmp_path / "out"), "--kubernetes", "--rules", str(settings.shipped_rules()))
    assert done.code == 0
    names = [path.name for path in sorted((tmp_path / "out" / "rules").iterdir())]
    assert len(names) > 3
    told = yaml.safe_load((tmp_path / "out" / "kustomization.yaml").read_text())
    assert told["configMapGenerator"][0]["files"] == [f"rules/{name}" for name in names]


def test_plain(written: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    directory = written("plain")
    monkeypatch.chdir(directory)
    chosen = accepted(["serve", "--config", "edgeproxy.yaml"], {}, directory)
    assert chosen.rules == Path("rules")


# -- systemd ---------------------------------------------------------------------------------------------


def unit(path: Path) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(strict=False, delimiters=("=",), interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(path.read_text())
    return parser


def test_the_service_runs_what_there_is(written: Callable[[str], Path]) -> None:
    directory = written("systemd")
    localised(directory / "edgeproxy.yaml", directory)
    service = unit(directory / "edgeproxy.service")["Service"]
    command, *words = shlex.split(service["ExecStart"])
    assert Path(command).name == "edgeproxy"
    chosen = accepted(words, {}, directory)
    assert chosen.rules == directory / "rules"
    assert float(service["TimeoutStopSec"]) > chosen.drain_timeout + 8
    assert unit(directory / "edgeproxy.socket")["Socket"]["FileDescriptorName"] == "listen"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not on the PATH")
def test_systemd_takes_the_units(written: Callable[[str], Path]) -> None:
    directory = written("systemd")
    service = directory / "edgeproxy.service"
    service.write_text(
        service.read_text().replace(shlex.split(unit(service)["Service"]["ExecStart"])[0], "/bin/true")
    )
    for words in (["verify", "--man=no"], ["security", "--offline=true", "--threshold=15", "--no-pager"]):
        done = subprocess.run(
            ["systemd-analyze", *words, str(service)], capture_output=True, text=True, timeout=30, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        ours = [line for line in done.stderr.splitlines() if "edgeproxy." in line]
        assert ours == []


# -- compose ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("origins", "inside"),
    [
        ("http://127.0.0.1:9000", "http://host.docker.internal:9000"),
        ("http://localhost,http://[::1]:80", "http://host.docker.internal,http://host.docker.internal:80"),
        ("https://127.0.0.1.example:1,http://localhosts/", "https://127.0.0.1.example:1,http://localhosts/"),
        ("http://api.internal:9000", "http://api.internal:9000"),
    ],
)
def test_a_loopback_is_not_a_containers(tmp_path: Path, origins: str, inside: str) -> None:
    assert from_inside(origins) == inside
    for kind in KINDS:
        write(tmp_path / kind.name, kind, origin=origins)
        config = next((tmp_path / kind.name).rglob("edgeproxy.yaml"), None)
        if config is not None:
            assert (inside if kind.name == "compose" else origins) in config.read_text()


def test_compose(written: Callable[[str], Path]) -> None:
    directory = written("compose")
    localised(directory / "edgeproxy.yaml", directory)
    told: dict[str, Any] = yaml.safe_load((directory / "compose.yaml").read_text())
    secrets = dict(
        line.split("=", 1)
        for line in (directory / ".env").read_text().splitlines()
        if not line.startswith("#")
    )
    assert stat.S_IMODE((directory / ".env").stat().st_mode) == 0o600
    assert len(set(secrets.values())) == len(secrets) == 4
    text = (directory / "compose.yaml").read_text()
    for name in ("EDGEPROXY_ADMIN_TOKEN", "EDGEPROXY_READ_TOKEN", "REDIS_PASSWORD", "GRAFANA_PASSWORD"):
        assert f"${{{name}:?see .env}}" in text
        assert name in secrets

    edge = told["services"]["edge"]
    environ = {
        name: value.replace("${REDIS_PASSWORD:?see .env}", secrets["REDIS_PASSWORD"])
        for name, value in edge["environment"].items()
    }
    chosen = accepted(edge["command"], environ, directory)
    assert chosen.rules == directory / "rules"
    assert chosen.store.startswith("redis://:")
    assert edge["read_only"]
    assert edge["cap_drop"] == ["ALL"]
    assert edge["image"] == f"edgeproxy:{__version__}"
    for service in told["services"].values():
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            if source.startswith("."):
                assert (directory / source).exists(), source
            else:
                assert source in told["volumes"]
        assert ":latest" not in service["image"]
    prometheus = yaml.safe_load((directory / "prometheus" / "prometheus.yml").read_text())
    scrape = prometheus["scrape_configs"][0]
    assert scrape["static_configs"][0]["targets"] == [f"edge:{chosen.admin.port}"]
    assert (
        scrape["authorization"]["credentials_file"]
        == f"/run/secrets/{told['services']['prometheus']['secrets'][0]}"
    )
    for path in directory.rglob("*.y*ml"):
        assert yaml.safe_load(path.read_text()), path


# -- Kubernetes ------------------------------------------------------------------------------------------


def test_the_sidecar(written: Callable[[str], Path]) -> None:
    directory = written("kubernetes")
    (directory / "admin-token").write_text("secret")
    pod = yaml.safe_load((directory / "deployment.yaml").read_text())["spec"]["template"]["spec"]
    api, edge = pod["containers"]
    chosen = accepted(edge["args"], {}, directory)
    assert chosen.admin_token == "secret"
    ports = {port["name"]: port["containerPort"] for port in edge["ports"]}
    assert ports == {"http": chosen.listen.port, "admin": chosen.admin.port}
    for probe, path in (
        ("startupProbe", "/readyz"),
        ("readinessProbe", "/readyz"),
        ("livenessProbe", "/healthz"),
    ):
        assert edge[probe]["httpGet"] == {"path": path, "port": "admin"}
    assert edge["securityContext"]["readOnlyRootFilesystem"]
    assert not edge["securityContext"]["allowPrivilegeEscalation"]
    pause = int(edge["lifecycle"]["preStop"]["exec"]["command"][1])
    longest = pause + chosen.drain_timeout
    assert api["lifecycle"]["preStop"]["sleep"]["seconds"] > longest
    assert pod["terminationGracePeriodSeconds"] > api["lifecycle"]["preStop"]["sleep"]["seconds"]
    mounts = {mount["name"]: mount["mountPath"] for mount in edge["volumeMounts"]}
    assert {volume["name"] for volume in pod["volumes"]} == set(mounts)
    assert mounts["cache"] == str(chosen.cache_dir)
    memory = edge["resources"]["limits"]["memory"]
    assert memory == "512Mi"
    assert chosen.memory * 3 < 512 * 2**20
    assert chosen.workers == 1


def test_rules_in_a_mounted_config_map_are_read(tmp_path: Path) -> None:
    """Kubernetes swaps a directory behind links, so that all files change at once."""
    data = tmp_path / "..2026_01_01"
    data.mkdir()
    shutil.copy(HERE / "rules" / "50-api.yaml", data)
    (tmp_path / "..data").symlink_to(data.name)
    (tmp_path / "50-api.yaml").symlink_to("..data/50-api.yaml")
    assert len(load_rules(tmp_path).rules) == 2


@pytest.mark.long
@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not on the PATH")
def test_kustomize_takes_it(written: Callable[[str], Path]) -> None:
    done = subprocess.run(
        ["kubectl", "kustomize", str(written("kubernetes"))],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    kinds = {each["kind"]: each for each in yaml.safe_load_all(done.stdout)}
    assert set(kinds) == {"ConfigMap", "Deployment", "Service"}
    name = kinds["ConfigMap"]["metadata"]["name"]
    volumes = kinds["Deployment"]["spec"]["template"]["spec"]["volumes"]
    assert {"name": "rules", "configMap": {"name": name}} in volumes


# -- the image -------------------------------------------------------------------------------------------


def needed(lines: list[str], found: set[str]) -> set[str]:
    """The packages that these requirements come to here."""
    for requirement in map(Requirement, lines):
        plain = requirement.name.lower().replace("_", "-")
        if plain not in found and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
            found.add(plain)
            needed(metadata.requires(plain) or [], found)
    return found


def test_the_constraints_are_what_the_tests_run_with() -> None:
    """After an upgrade: run the suite, then write the new versions there."""
    lines = (HERE / "constraints.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    pinned = {name.lower().replace("_", "-"): version for name, version in pinned.items()}
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert needed(wanted, set()) <= set(pinned), "a dependency without a version"
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(pinned[requirement.name.lower()]), requirement


def test_the_image_is_without_root_and_pinned() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert "-c edgeproxy/templates/constraints.txt" in text
    lines = text.splitlines()
    assert "USER 10001:10001" in lines
    # After that nothing is installed or changed.
    assert not any(
        line.startswith(("RUN", "COPY", "ADD")) for line in lines[lines.index("USER 10001:10001") :]
    )
    told = [line.replace("ENV ", "").split()[0] for line in lines if "EDGEPROXY_" in line and "=" in line]
    variables = {each.partition("=")[0] for each in told if each.startswith("EDGEPROXY_")}
    assert variables
    assert variables <= VARIABLES
