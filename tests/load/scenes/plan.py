"""The scenes as data: scenes.yaml, decoded and checked.

Rules of this file:

- One table, one decoder: an unknown word, a negative number or a phase without a name is refused, and the
  message says where it stands.
- A phase has all it needs to be sent; defaults are filled in here and nowhere else.
- The short form changes how much, never what: each scene keeps its phases, and each phase what happens in it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import yaml

HERE = Path(__file__).parent
SCENES = HERE / "scenes.yaml"
TARGETS = HERE / "targets.yaml"

Amount = Annotated[float, msgspec.Meta(ge=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Name = Annotated[str, msgspec.Meta(pattern="^[a-z][a-z0-9-]*$")]

SHORT_RATE = 0.1
SHORT_CONNECTIONS = 50
SHORT_URLS = 100


class Wrong(Exception):  # noqa: N818 - of a file, not of the program
    """A file that cannot be used; the message is one line."""


class Phase(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``seconds`` long; ``rate`` in requests a second, at its beginning and at its end."""

    name: Name
    seconds: Annotated[float, msgspec.Meta(gt=0)]
    rate: Amount | Annotated[list[float], msgspec.Meta(min_length=2, max_length=2)]
    connections: Count
    urls: Count
    zipf: Amount
    new: Share
    per_connection: int = 0
    origin: Literal["killed", "back", "stopped", "continued"] | None = None
    purge: bool = False
    judged: bool = True

    def rate_at(self, second: float) -> float:
        if isinstance(self.rate, list):
            first, last = self.rate
            return first + (last - first) * min(second / self.seconds, 1.0)
        return self.rate

    def times(self, factor: float) -> Phase:
        """The same with another rate."""
        rate = self.rate
        return msgspec.structs.replace(
            self, rate=[each * factor for each in rate] if isinstance(rate, list) else rate * factor
        )

    def short(self, seconds: float) -> Phase:
        return msgspec.structs.replace(
            self.times(SHORT_RATE),
            seconds=seconds,
            connections=min(self.connections, SHORT_CONNECTIONS),
            urls=min(self.urls, SHORT_URLS),
        )


class Scene(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    name: Name
    idea: str
    phases: Annotated[list[Phase], msgspec.Meta(min_length=1)]
    rule: dict[str, Any]
    filled: bool = True
    edge: list[str] = []

    @property
    def seconds(self) -> float:
        return sum(phase.seconds for phase in self.phases)

    @property
    def ours(self) -> bool:
        """Whether it does something to the origin or the edge, so that they have to be ours."""
        return any(phase.origin or phase.purge for phase in self.phases)

    def short(self, seconds: float) -> Scene:
        return msgspec.structs.replace(self, phases=[phase.short(seconds) for phase in self.phases])

    def times(self, factor: float) -> Scene:
        return msgspec.structs.replace(self, phases=[phase.times(factor) for phase in self.phases])

    def lasting(self, seconds: float) -> Scene:
        """With a last phase of so many ``seconds``."""
        *before, last = self.phases
        return msgspec.structs.replace(self, phases=[*before, msgspec.structs.replace(last, seconds=seconds)])


def read(path: Path = SCENES) -> dict[str, Scene]:
    """Scenes by name, in the file's order. Raises Wrong."""
    told = document(path)
    try:
        defaults = told.pop("defaults", {})
        scenes = {
            name: msgspec.convert(_filled_in(name, scene, defaults), Scene)
            for name, scene in told.pop("scenes").items()
        }
    except (msgspec.ValidationError, AttributeError, KeyError, TypeError) as error:
        raise Wrong(f"{path}: {error}") from None
    if told:
        raise Wrong(f"{path}: defaults and scenes, not {', '.join(map(str, told))}")
    return scenes


def document(path: Path) -> dict[str, Any]:
    """A YAML file that is a mapping. Raises Wrong."""
    try:
        told = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise Wrong(f"{path}: {' '.join(str(error).split())}") from None
    if not isinstance(told, dict):
        raise Wrong(f"{path}: a mapping is wanted")
    return told


def _filled_in(name: str, scene: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    every = {**defaults.get("every", {}), **scene.get("every", {})}
    rest = {key: value for key, value in scene.items() if key != "every"}
    phases = [{**every, **phase} for phase in scene["phases"]]
    edge = [*defaults.get("edge", []), *scene.get("edge", [])]  # of a flag given twice the later counts
    return {"name": name, "rule": defaults.get("rule", {}), **rest, "phases": phases, "edge": edge}
