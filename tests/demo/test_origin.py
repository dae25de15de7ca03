"""The demo origin is a real one: real rows, real queries, true validators."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edgeproxy.demo.catalogue import PITCHES, PROFILES, Catalogue
from edgeproxy.demo.origin import DemoOrigin
from tests.support.driven import DrivenClock
from tests.support.origins import ROOT, demo_origin

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aiohttp import ClientResponse
    from aiohttp.test_utils import TestClient
    from pytest_aiohttp.plugin import AiohttpClient

    Client = TestClient[Any, Any]

NEW = {"title": "The Lighthouse Cache", "genre": "comedy", "logline": "A keeper keeps.", "body": "Once."}


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("filled") / "demo.sqlite"
    Catalogue(path).close()
    return path


@pytest.fixture
def catalogue(filled: Path, tmp_path: Path) -> Iterator[Catalogue]:
    made = Catalogue(Path(shutil.copy(filled, tmp_path / "demo.sqlite")))
    yield made
    made.close()


@pytest.fixture
async def client(catalogue: Catalogue, aiohttp_client: AiohttpClient) -> Client:
    return await aiohttp_client(DemoOrigin(catalogue, DrivenClock(1_800_000_000)).application())


async def test_the_list_is_paged_and_best_first(client: Client) -> None:
    first = await (await client.get("/api/pitches")).json()
    second = await (await client.get("/api/pitches?page=2")).json()
    assert first["total"] == second["total"] == PITCHES
    assert len(first["pitches"]) == len(second["pitches"]) == 20
    scores = [pitch["score"] for pitch in first["pitches"] + second["pitches"]]
    assert scores == sorted(scores, reverse=True)
    assert not {p["id"] for p in first["pitches"]} & {p["id"] for p in second["pitches"]}


async def test_the_list_by_genre(client: Client) -> None:
    answer = await (await client.get("/api/pitches?genre=western")).json()
    assert 0 < answer["total"] < PITCHES
    assert {pitch["genre"] for pitch in answer["pitches"]} == {"western"}


async def test_two_fills_are_the_same_octet_for_octet(client: Client, tmp_path: Path) -> None:
    other = Catalogue(tmp_path / "other.sqlite")
    try:
        again = other.trending()
    finally:
        other.close()
    assert (await (await client.get("/api/pitches/trending")).json())["pitches"] == again


async def test_a_file_left_half_filled_is_filled_anew(filled: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(filled, tmp_path / "half.sqlite"))
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("DELETE FROM pitches WHERE id > 50; PRAGMA user_version = 0;")
    again = Catalogue(path)
    try:
        assert again.page(None, 1)[0] == PITCHES
    finally:
        again.close()


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/api/pitches?page=0", 400),
        ("/api/pitches?page=99999999999999999999", 400),
        ("/api/pitches?page=\u00b2", 400),
        ("/api/pitches?genre=opera", 400),
        ("/api/pitches/99999", 404),
        ("/api/profiles/99999", 404),
        ("/api/search?q=a", 400),
        ("/api/notifications", 401),
        ("/static/nothing.css", 404),
        ("/nowhere", 404),
    ],
)
async def test_what_it_refuses(client: Client, target: str, status: int) -> None:
    assert (await client.get(target)).status == status


async def test_an_unchanged_pitch_answers_304_and_a_changed_one_does_not(client: Client) -> None:
    first = await client.get("/api/pitches/7")
    known = {"If-None-Match": f'W/"other", {first.headers["ETag"]}'}
    assert (await client.get("/api/pitches/7", headers=known)).status == 304
    since = {"If-Modified-Since": first.headers["Last-Modified"]}
    assert (await client.get("/api/pitches/7", headers=since)).status == 304

    assert (await client.put("/api/pitches/7", json={"title": "Renamed"})).status == 200
    after = await client.get("/api/pitches/7", headers=known | since)
    assert after.status == 200
    assert (await after.json())["title"] == "Renamed"
    assert after.headers["ETag"] != first.headers["ETag"]
    assert after.headers["Last-Modified"] == "Fri, 15 Jan 2027 08:00:00 GMT"


async def test_a_created_pitch_is_the_newest_and_is_found(client: Client) -> None:
    made = await client.post("/api/pitches", json=NEW)
    assert made.status == 201
    where = made.headers["Location"]
    assert (await (await client.get(where)).json())["title"] == NEW["title"]
    newest = await (await client.get("/api/pitches/new")).json()
    assert newest["pitches"][0]["title"] == NEW["title"]
    found = await (await client.get("/api/search?q=lighthouse cache")).json()
    assert [pitch["title"] for pitch in found["pitches"]] == [NEW["title"]]


@pytest.mark.parametrize(
    ("sent", "complaint"),
    [
        (b"{", "not JSON"),
        (b"[]", "an object"),
        (b'{"title": 3}', "title: a text"),
        (b'{"genre": "opera"}', "genre: one of"),
        (b'{"id": 3}', "an object with"),
        (b'{"title": "only"}', "missing: body, genre, logline"),
    ],
)
async def test_what_may_not_be_written(client: Client, sent: bytes, complaint: str) -> None:
    answer = await client.post("/api/pitches", data=sent)
    assert answer.status == 422
    assert complaint in (await answer.json())["detail"]


async def test_search_looks_for_the_words_and_knows_no_wildcards(client: Client) -> None:
    found = await (await client.get("/api/search?q=River")).json()
    assert 0 < len(found["pitches"]) <= 30
    relevance = [pitch["relevance"] for pitch in found["pitches"]]
    assert relevance == sorted(relevance, reverse=True)
    assert relevance[-1] > 0
    assert (await (await client.get("/api/search?q=%25%25")).json())["pitches"] == []


async def test_live_numbers_change_with_every_answer(client: Client) -> None:
    first = await (await client.get("/api/live/3")).json()
    second = await (await client.get("/api/live/3")).json()
    assert first["serial"] < second["serial"]
    assert first["votes"] == second["votes"] > 0


async def test_notifications_are_each_persons_own(client: Client) -> None:
    async def of(token: str) -> ClientResponse:
        return await client.get("/api/notifications", headers={"Authorization": f"Bearer {token}"})

    one, other = await of("ada"), await of("grace")
    assert one.headers["Cache-Control"].startswith("private")
    assert one.headers["Vary"] == "Authorization"
    mine, theirs = await one.json(), await other.json()
    assert 1 <= mine["profile"] <= PROFILES
    assert mine["profile"] != theirs["profile"]
    assert mine["notifications"] != theirs["notifications"]
    assert await (await of("ada")).json() == mine


@pytest.mark.parametrize(
    ("name", "kind", "least"),
    [
        ("site.css", "text/css", 25_000),
        ("app.js", "text/javascript", 80_000),
        ("map.svg", "image/svg+xml", 12_000),
    ],
)
async def test_static_files(client: Client, name: str, kind: str, least: int) -> None:
    answer = await client.get(f"/static/{name}")
    assert answer.headers["Content-Type"].startswith(kind)
    assert len(await answer.read()) > least
    again = await client.get(f"/static/{name}", headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status, await again.read()) == (304, b"")
    head = await client.head(f"/static/{name}")
    assert int(head.headers["Content-Length"]) > least


async def test_tags_name_what_an_answer_shows(client: Client) -> None:
    assert (await client.get("/api/pitches/7")).headers["Surrogate-Key"] == "pitches pitch:7"
    answer = await client.get("/api/pitches")
    ids = [pitch["id"] for pitch in (await answer.json())["pitches"]]
    assert answer.headers["Surrogate-Key"].split() == ["pitches", *(f"pitch:{number}" for number in ids)]


async def test_it_counts_what_reached_it_and_not_the_asking(client: Client) -> None:
    for _ in range(3):
        await client.get("/api/live/3?x=1")
    await client.get("/nowhere")
    await client.get("/_demo/counts")
    counts = await (await client.get("/_demo/counts")).json()
    assert counts == {"counts": {"GET /api/live/3?x=1": 3, "GET /nowhere": 1}, "total": 4}


def test_it_runs_by_itself_and_ends_when_told(tmp_path: Path) -> None:
    with demo_origin(tmp_path) as running:
        assert running.get("/api/pitches/new").status == 200
        assert running.log() == f"demo origin on {running.url}\n"
        assert running.terminate() == 0
        assert "Traceback" not in running.log()


def test_a_port_in_use_is_said_in_one_line(tmp_path: Path) -> None:
    with demo_origin(tmp_path) as first:
        command = [sys.executable, "-m", "edgeproxy.demo.origin", "--port", str(first.port)]
        second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert second.returncode == 2
    assert second.stderr.startswith("demo origin: ")
    assert second.stderr.count("\n") == 1
