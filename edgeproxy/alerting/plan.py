"""Who is told of alerts, and when: the file that ``--alerts`` names.

Rules of this file:

- A receiver is a URL as Apprise has them, ``console:``, or ``file:PATH``. URLs hold secrets: they may stand
  in this file, in one of their own (``{file: PATH}``) or in a variable (``{env: NAME}``), and none is ever
  part of a message or of ``repr``.
- A step says who hears of an alert that has been firing for so long. Without steps all receivers hear at once
  and again after 5, 15 and 30 minutes.
- What is wrong is one line: the file, the place, what was expected.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import yaml

from edgeproxy.observe import baseline

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgeproxy.observe.thresholds import Normal
    from edgeproxy.settings import Settings

ESCALATION = (0.0, 300.0, 900.0, 1800.0)
"""Seconds."""
REPEAT = 4 * 3600.0
INTERVAL = 15.0
"""Between two looks: what Prometheus is usually told."""
SEVERITIES = frozenset(("warning", "critical"))
LARGEST = 64 * 1024
_TIMES = {"s": 1.0, "m": 60.0, "h": 3600.0}


class PlanError(ValueError):
    """One line: where, and what was expected. Never a URL."""


@dataclass(frozen=True, slots=True)
class Receiver:
    name: str
    urls: tuple[str, ...] = field(repr=False)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The schemes of its URLs: all of them that may be shown."""
        return tuple(dict.fromkeys(url.partition(":")[0].lower() for url in self.urls))


@dataclass(frozen=True, slots=True)
class Step:
    """After ``after`` seconds of firing, ``tell`` (names of receivers) hear of it, if it is one of these."""

    after: float
    tell: tuple[str, ...]
    severities: frozenset[str] = SEVERITIES


@dataclass(frozen=True, slots=True)
class Plan:
    """``repeat``: seconds after which somebody is told again that it goes on. ``usual``: rule -> how it
    usually does."""

    receivers: tuple[Receiver, ...] = ()
    steps: tuple[Step, ...] = ()
    repeat: float = REPEAT
    interval: float = INTERVAL
    usual: Mapping[str, Normal] = field(default_factory=dict)


class _Elsewhere(msgspec.Struct, forbid_unknown_fields=True):
    file: str = ""
    env: str = ""


class _Step(msgspec.Struct, forbid_unknown_fields=True):
    after: str
    tell: list[str]
    severity: Literal["warning", "critical"] | None = None


class _File(msgspec.Struct, forbid_unknown_fields=True):
    receivers: dict[str, str | _Elsewhere] = {}
    steps: list[_Step] | None = None
    repeat: str = "4h"
    interval: str = "15s"
    baseline: str = ""


def wanted(settings: Settings, environ: Mapping[str, str]) -> Plan | None:
    """What the settings say; None: nothing is watched. Raises PlanError."""
    if settings.alerts == "off" or not (settings.alerts or settings.alert_urls):
        return None
    if settings.alerts not in ("", "on"):
        return read(Path(settings.alerts), environ, settings.alert_urls or "")
    return _with(_File(), _of_variable(settings.alert_urls or ""), "EDGEPROXY_ALERT_URLS", Path())


def read(path: Path, environ: Mapping[str, str], more: str = "") -> Plan:
    """The plan in a file. ``more``: URLs besides, as EDGEPROXY_ALERT_URLS has them. Raises PlanError."""
    try:
        told = _yaml(path.read_bytes())
        found = msgspec.convert({} if told is None else told, _File)
    except OSError as error:
        raise PlanError(f"{path}: {error.strerror}") from None
    except yaml.MarkedYAMLError as error:  # its own text quotes the line
        line = error.problem_mark.line + 1 if error.problem_mark is not None else 1
        raise PlanError(f"{path}:{line}: {error.problem or 'no YAML'}") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise PlanError(f"{path}: expected YAML") from None
    except msgspec.ValidationError as error:
        raise PlanError(f"{path}: {error}") from None
    receivers = [_receiver(path, name, value, environ) for name, value in found.receivers.items()]
    return _with(found, [*receivers, *_of_variable(more)], str(path), path.parent)


def _yaml(octets: bytes) -> Any:
    # This loader makes strings, lists and dicts only.
    return yaml.load(octets, Loader=yaml.BaseLoader)  # noqa: S506  # nosec B506


def _receiver(path: Path, name: str, value: str | _Elsewhere, environ: Mapping[str, str]) -> Receiver:
    where = f"{path}: receivers.{name}"
    if isinstance(value, str):
        told = value
    elif value.file and not value.env:
        try:
            with (path.parent / value.file).open() as file:
                told = file.read(LARGEST)
        except (OSError, UnicodeDecodeError) as error:
            raise PlanError(f"{where}: {value.file}: {getattr(error, 'strerror', 'no text')}") from None
    elif value.env and not value.file:
        told = environ.get(value.env, "")
        if not told:
            raise PlanError(f"{where}: the variable {value.env} is not set")
    else:
        raise PlanError(f"{where}: expected one of file and env")
    urls = tuple(told.split())
    if not urls or not all(":" in url for url in urls):
        raise PlanError(f"{where}: expected a URL, such as slack://…, mailto://…, console: or file:PATH")
    return Receiver(name, urls)


def _of_variable(told: str) -> list[Receiver]:
    """A receiver for each URL, named by what it is and its number."""
    urls = told.split()
    if not all(":" in url for url in urls):
        raise PlanError("EDGEPROXY_ALERT_URLS: expected URLs with spaces between them")
    return [Receiver(f"{url.partition(':')[0]}-{number}", (url,)) for number, url in enumerate(urls, 1)]


def _with(found: _File, receivers: list[Receiver], where: str, beside: Path) -> Plan:
    names = tuple(each.name for each in receivers)
    if found.steps is None:
        steps = [Step(after, names) for after in ESCALATION]
    else:
        steps = [_step(step, names, f"{where}: steps[{number}]") for number, step in enumerate(found.steps)]
    usual: Mapping[str, Normal] = {}
    if found.baseline:
        file = beside / found.baseline
        try:
            usual = baseline.decode(file.read_bytes()).normals
        except OSError as error:
            raise PlanError(f"{where}: baseline: {file}: {error.strerror}") from None
        except ValueError as error:
            raise PlanError(f"{where}: baseline: {file} is no baseline: {error}") from None
    repeat = _seconds(found.repeat, f"{where}: repeat")
    interval = _seconds(found.interval, f"{where}: interval")
    if not 1 <= interval <= 60 or repeat < 60:
        raise PlanError(f"{where}: expected an interval from 1s to 60s, and repeat of 1m or more")
    return Plan(tuple(receivers), tuple(sorted(steps, key=lambda step: step.after)), repeat, interval, usual)


def _step(step: _Step, names: tuple[str, ...], where: str) -> Step:
    for name in step.tell:
        if name not in names:
            raise PlanError(f"{where}: {name!r} is no receiver; there are {', '.join(names) or 'none'}")
    severities = SEVERITIES if step.severity is None else frozenset((step.severity,))
    return Step(_seconds(step.after, f"{where}: after"), tuple(step.tell), severities)


def _seconds(told: str, where: str) -> float:
    number, unit = told[:-1], told[-1:]
    if unit not in _TIMES or not number.isascii() or not number.isdecimal() or len(number) > 6:
        raise PlanError(f"{where}: {told[:20]!r}: expected a time, such as 30s, 5m or 4h")
    return int(number) * _TIMES[unit]
