"""The life of a rule set on the admin port: its history, the way back, a second set tried beside it.

Rules of this file:

- RuleLife is what the admin application asks; bodies are decoded strictly.
- A set to be tried comes in the request, its files whole: who sends it need not be on this machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeVar

import msgspec
from aiohttp import web

from edgeproxy.admin.problem import Problem, to_json
from edgeproxy.rules.differences import EVERY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgeproxy.admin.control import ReloadResult
    from edgeproxy.rules.taken import Files

LARGEST_BODY = 64 * 1024 * 1024
_By = Annotated[str, msgspec.Meta(max_length=200)]
_Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,199}\.ya?ml$")]


class RuleLife(Protocol):
    async def history(self) -> Mapping[str, Any]:
        """Versions, oldest first; what is held and what is tried."""

    async def held(self) -> str:
        """Why the rules in force are not those of the files, in a line; "" where they are."""

    @property
    def unkept(self) -> str:
        """Why no versions are kept, in a line; "" where they are."""

    async def candidate(self) -> Mapping[str, Any] | None:
        """What is tried: ``version``, ``percent``, ``sample``, ``by``."""

    async def rollback(self, to: str, by: str) -> ReloadResult:
        """To the version ``to``; "" ends what is tried, or else brings back the version before. Raises
        Refused and Problem."""

    async def shadow(self, files: Files, sample: int, by: str) -> ReloadResult:
        """Compare these rules, on live traffic, with those in force. Raises Problem."""

    async def promote(self, percent: float, by: str) -> ReloadResult:
        """Answer so many of the keys under the rules that are tried; with 100 they are in force. Raises
        Refused and Problem."""

    async def differences(self) -> Mapping[str, Any]:
        """What the rules that are tried do otherwise. Raises Refused where none are."""


class Rollback(msgspec.Struct, forbid_unknown_fields=True):
    to: Annotated[str, msgspec.Meta(max_length=64)] = ""
    by: _By = ""


class Shadow(msgspec.Struct, forbid_unknown_fields=True):
    """``files``: name -> text."""

    files: Annotated[dict[_Name, str], msgspec.Meta(min_length=1, max_length=1000)]
    sample: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = EVERY
    by: _By = ""


class Promote(msgspec.Struct, forbid_unknown_fields=True):
    percent: Annotated[float, msgspec.Meta(ge=0, le=100)]
    by: _By = ""


class Reload(msgspec.Struct, forbid_unknown_fields=True):
    by: _By = ""


EXPECTED: dict[type[msgspec.Struct], str] = {
    Rollback: 'nothing, or {"to": "12"}',
    Shadow: '{"files": {"10-a.yaml": "rules: …"}}, and optionally "sample" (one request in so many)',
    Promote: '{"percent": 10}',
    Reload: 'nothing, or {"by": "…"}',
}

B = TypeVar("B", bound=msgspec.Struct)


def decode(body: bytes, kind: type[B]) -> B:
    """Raises Problem (400)."""
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Problem(400, f"{error}; expected {EXPECTED[kind]}") from None


class RuleLifeApi:
    """The handlers."""

    def __init__(self, life: RuleLife) -> None:
        self._life = life

    async def history(self, _: web.Request) -> web.StreamResponse:
        return _json(await self._life.history())

    async def differences(self, _: web.Request) -> web.StreamResponse:
        return _json(await self._life.differences())

    async def rollback(self, request: web.Request) -> web.StreamResponse:
        said = decode(await request.read(), Rollback)
        return answer(await self._life.rollback(said.to, said.by), await self._life.candidate())

    async def shadow(self, request: web.Request) -> web.StreamResponse:
        body = bytearray()
        async for chunk in request.content.iter_any():
            body += chunk
            if len(body) > LARGEST_BODY:
                raise Problem(413, f"larger than {LARGEST_BODY // 1024**2} MiB")
        said = decode(bytes(body), Shadow)
        files = [(name, text.encode("utf-8", "surrogatepass")) for name, text in sorted(said.files.items())]
        return answer(await self._life.shadow(files, said.sample, said.by), await self._life.candidate())

    async def promote(self, request: web.Request) -> web.StreamResponse:
        said = decode(await request.read(), Promote)
        return answer(await self._life.promote(said.percent, said.by), await self._life.candidate())


def answer(result: ReloadResult, candidate: Mapping[str, Any] | None = None, held: str = "") -> web.Response:
    """How a change of rules went, and what is tried now. Raises Problem (422, 503)."""
    if result.errors:
        count = len(result.errors)
        raise Problem(
            422,
            f"the rule files have {count} error{'s' if count > 1 else ''}; the rules loaded before go on",
            errors=list(result.errors),
            version=result.version,
            rules=result.rules,
        )
    if result.missing:
        raise Problem(
            503,
            "not every worker has taken the rules over; those that have not are being replaced",
            errors=list(result.missing),
            version=result.version,
            rules=result.rules,
        )
    beside: dict[str, Any] = {} if candidate is None else {"candidate": candidate}
    if held:
        beside["held"] = held
    return _json({"version": result.version, "rules": result.rules, **beside})


def _json(body: Mapping[str, Any]) -> web.Response:
    return web.Response(body=to_json(body), content_type="application/json")
