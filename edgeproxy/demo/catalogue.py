"""The demo origin's data: a SQLite file, filled the same way every time, and the questions asked of it.

Rules of this file:

- SQL and rows; it knows nothing of HTTP. Every method blocks and is called in a thread.
- The tables have no index beside their primary keys. The queries take their 10 to 150 ms because they scan
  and sort, as those of a service that grew; nothing here sleeps.
- Reads each thread by its own connection; writes are short transactions (WAL), so that readers go on.
"""

from __future__ import annotations

import random
import sqlite3
import threading
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

PITCHES = 2_000
PROFILES = 300
VOTES = 60_000
PAGE = 20
"""Pitches on one page of a list."""

EPOCH = 1_767_225_600
"""2026-01-01 00:00 UTC: when the first pitch was made. One every 20 minutes after that."""

GENRES = ("drama", "comedy", "thriller", "documentary", "fantasy", "mystery", "western", "animation")

_SYLLABLES = (
    "ba be bo ca ce co da de do fa fe fi ga ge go ha he hi ja ka ke la le li lo ma me mi mo na ne no "
    "pa pe po ra re ri ro sa se si so ta te ti to va ve vi wa we za zo"
)
_PLAIN = (
    "a the of and in with without after before under over between last first lost hidden quiet bright "
    "river city winter garden harbour letter witness stranger daughter captain island orchard signal "
    "engine archive mirror lantern border market bridge forest summer station promise secret return "
    "leaves finds keeps follows forgets builds burns crosses remembers waits"
)
_CITIES = ("Lisbon", "Leipzig", "Lyon", "Lagos", "Lima", "Lahore", "Leeds", "Ljubljana")

_FILLED = 1
"""What user_version is once the file is whole: one that was left half filled is filled anew."""

_SCHEMA = """
DROP TABLE IF EXISTS profiles; DROP TABLE IF EXISTS pitches; DROP TABLE IF EXISTS votes;
CREATE TABLE profiles (id INTEGER PRIMARY KEY, handle TEXT, name TEXT, city TEXT, bio TEXT, updated INTEGER);
CREATE TABLE pitches (
  id INTEGER PRIMARY KEY, profile_id INTEGER, title TEXT, genre TEXT, logline TEXT, body TEXT,
  created INTEGER, updated INTEGER, revision INTEGER DEFAULT 1
);
CREATE TABLE votes (pitch_id INTEGER, profile_id INTEGER, score INTEGER, cast_at INTEGER);
"""

_TALLY = "SELECT pitch_id, count(*) AS votes, round(avg(score), 2) AS score FROM votes GROUP BY pitch_id"
_COLUMNS = """
p.id, p.title, p.genre, p.logline, f.handle AS author, p.created, p.updated,
coalesce(v.votes, 0) AS votes, coalesce(v.score, 0) AS score
"""
_JOINED = f"""
FROM pitches p JOIN profiles f ON f.id = p.profile_id LEFT JOIN ({_TALLY}) v ON v.pitch_id = p.id
"""
_SUMMARY = f"SELECT {_COLUMNS} {_JOINED}"
_PITCH = f"SELECT {_COLUMNS}, p.body, p.revision {_JOINED} WHERE p.id = ?"

_TRENDING = """
SELECT p.id, p.title, p.genre, f.handle AS author, round(h.heat, 3) AS heat,
       rank() OVER (PARTITION BY p.genre ORDER BY h.heat DESC) AS rank_in_genre
FROM (SELECT pitch_id, sum(score / (1.0 + (:newest - cast_at) / 86400.0)) AS heat
      FROM votes GROUP BY pitch_id) h
JOIN pitches p ON p.id = h.pitch_id JOIN profiles f ON f.id = p.profile_id
ORDER BY h.heat DESC, p.id LIMIT 25
"""

_RELATED = """
SELECT o.id, o.title, count(*) AS shared_voters
FROM votes mine JOIN votes other ON other.profile_id = mine.profile_id AND other.pitch_id <> mine.pitch_id
JOIN pitches o ON o.id = other.pitch_id
WHERE mine.pitch_id = ? GROUP BY o.id ORDER BY shared_voters DESC, o.id LIMIT 8
"""

_SEARCH = f"""
SELECT p.id, p.title, p.genre, p.logline, coalesce(v.votes, 0) AS votes,
       (length(p.body) - length(replace(lower(p.body), :q, ''))) / length(:q)
       + 5 * (instr(lower(p.title), :q) > 0) + 2 * (instr(lower(p.logline), :q) > 0) AS relevance
FROM pitches p LEFT JOIN ({_TALLY}) v ON v.pitch_id = p.id
WHERE instr(lower(p.title), :q) OR instr(lower(p.logline), :q) OR instr(lower(p.body), :q)
ORDER BY relevance DESC, votes DESC, coalesce(v.score, 0) DESC, p.id LIMIT 30
"""  # noqa: S608

Row = dict[str, object]


@dataclass(frozen=True, slots=True)
class Version:
    """Which state of a row this is: enough for a validator, and cheap to read."""

    revision: int
    updated: int


class Catalogue:
    """Pitches, profiles and votes in the SQLite file ``path``, made and filled if it is not there.

    Raises sqlite3.Error.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()
        self._lock = threading.Lock()
        self._connections: list[sqlite3.Connection] = []
        if self._value("PRAGMA user_version") != _FILLED:
            _fill(self._connection())

    def close(self) -> None:
        """Close every thread's connection; no other method may be running."""
        with self._lock:
            for connection in self._connections:
                connection.close()
            self._connections.clear()

    def page(self, genre: str | None, page: int) -> tuple[int, list[Row]]:
        """How many there are, and page ``page`` (from 1) of them, best first."""
        where, given = (" WHERE p.genre = ?", (genre,)) if genre else ("", ())
        total = self._value(f"SELECT count(*) FROM pitches p{where}", *given)  # noqa: S608
        order = " ORDER BY score DESC, votes DESC, p.id LIMIT ? OFFSET ?"
        return total, self._rows(_SUMMARY + where + order, *given, PAGE, (page - 1) * PAGE)

    def newest(self) -> list[Row]:
        return self._rows(f"{_SUMMARY} ORDER BY p.created DESC, p.id DESC LIMIT {PAGE}")

    def trending(self) -> list[Row]:
        newest = self._value("SELECT max(cast_at) FROM votes")
        cursor = self._connection().execute(_TRENDING, {"newest": newest})
        return [dict(row) for row in cursor]

    def pitch(self, pitch_id: int) -> tuple[Version, Row] | None:
        found = self._rows(_PITCH, pitch_id)
        if not found:
            return None
        row = found[0] | {"related": self._rows(_RELATED, pitch_id)}
        return Version(int(str(row["revision"])), int(str(row["updated"]))), row

    def pitch_version(self, pitch_id: int) -> Version | None:
        query = "SELECT revision, updated FROM pitches WHERE id = ?"
        found = self._connection().execute(query, (pitch_id,)).fetchone()
        return Version(*found) if found else None

    def profile(self, profile_id: int) -> Row | None:
        found = self._rows("SELECT * FROM profiles WHERE id = ?", profile_id)
        if not found:
            return None
        theirs = self._rows(f"{_SUMMARY} WHERE p.profile_id = ? ORDER BY score DESC, p.id", profile_id)
        return found[0] | {"pitches": theirs}

    def search(self, words: str) -> list[Row]:
        cursor = self._connection().execute(_SEARCH, {"q": words.lower()})
        return [dict(row) for row in cursor]

    def votes_on(self, pitch_id: int) -> Row:
        """Votes on one pitch and where they put it among all."""
        ranked = f"SELECT *, rank() OVER (ORDER BY votes DESC) AS place FROM ({_TALLY})"  # noqa: S608
        found = self._rows(f"SELECT votes, score, place FROM ({ranked}) WHERE pitch_id = ?", pitch_id)  # noqa: S608
        return found[0] if found else {"votes": 0, "score": 0, "place": None}

    def notifications(self, profile_id: int) -> list[Row]:
        """Give the latest votes on this person's pitches."""
        return self._rows(
            "SELECT p.id AS pitch, p.title, f.handle AS voter, v.score, v.cast_at FROM votes v "
            "JOIN pitches p ON p.id = v.pitch_id JOIN profiles f ON f.id = v.profile_id "
            "WHERE p.profile_id = ? ORDER BY v.cast_at DESC, p.id LIMIT 15",
            profile_id,
        )

    def create(self, fields: Row, now: int) -> int:
        """Add a pitch (title, genre, logline, body, profile_id); gives its id."""
        values = fields | {"created": now, "updated": now}
        names = ", ".join(values)
        marks = ", ".join(f":{name}" for name in values)
        with self._connection() as connection:
            cursor = connection.execute(f"INSERT INTO pitches ({names}) VALUES ({marks})", values)  # noqa: S608
        return int(cursor.lastrowid or 0)

    def update(self, pitch_id: int, fields: Row, now: int) -> bool:
        """Change a pitch; False if there is none."""
        values = fields | {"updated": now}
        changes = ", ".join(f"{name} = :{name}" for name in values)
        with self._connection() as connection:
            cursor = connection.execute(
                f"UPDATE pitches SET {changes}, revision = revision + 1 WHERE id = :id",  # noqa: S608
                values | {"id": pitch_id},
            )
        return cursor.rowcount == 1

    def _rows(self, sql: str, *values: object) -> list[Row]:
        return [dict(row) for row in self._connection().execute(sql, values)]

    def _value(self, sql: str, *values: object) -> int:
        (value,) = self._connection().execute(sql, values).fetchone()
        return int(value)

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = sqlite3.connect(self._path, timeout=10, check_same_thread=False)
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA journal_mode = WAL")
            # A demo's data need not survive a power cut.
            connection.execute("PRAGMA synchronous = OFF")
            self._local.connection = connection
            with self._lock:
                self._connections.append(connection)
        return connection


def _fill(connection: sqlite3.Connection) -> None:
    chance = random.Random(2_000)  # noqa: S311  (the point is that it is the same every time)
    syllables = _SYLLABLES.split()
    words = [*_PLAIN.split() * 3, *("".join(chance.choices(syllables, k=3)) for _ in range(400))]
    connection.executescript(_SCHEMA)
    with connection:
        connection.executemany(
            "INSERT INTO profiles VALUES (?, ?, ?, ?, ?, ?)", _profiles(chance, words, syllables)
        )
        connection.executemany(
            "INSERT INTO pitches VALUES (?, ?, ?, ?, ?, ?, ?, ?, 1)", _pitches(chance, words)
        )
        connection.executemany("INSERT INTO votes VALUES (?, ?, ?, ?)", _votes(chance))
        connection.execute(f"PRAGMA user_version = {_FILLED}")


def _profiles(chance: random.Random, words: list[str], syllables: list[str]) -> Iterator[tuple[object, ...]]:
    for number in range(1, PROFILES + 1):
        name = " ".join("".join(chance.choices(syllables, k=3)).title() for _ in range(2))
        handle = f"{name.split()[0].lower()}{number}"
        yield number, handle, name, chance.choice(_CITIES), _prose(chance, words, 60), EPOCH + number * 3_600


def _pitches(chance: random.Random, words: list[str]) -> Iterator[tuple[object, ...]]:
    for number in range(1, PITCHES + 1):
        title = " ".join(chance.choices(words, k=3)).title()
        made = EPOCH + number * 1_200
        yield (
            number, chance.randint(1, PROFILES), title, chance.choice(GENRES),
            _prose(chance, words, 18), _prose(chance, words, 260), made, made + chance.randint(0, 86_400),
        )  # fmt: skip


def _votes(chance: random.Random) -> Iterable[tuple[int, int, int, int]]:
    pitches = chance.choices(range(1, PITCHES + 1), weights=range(PITCHES, 0, -1), k=VOTES)
    voters = chance.choices(range(1, PROFILES + 1), k=VOTES)
    scores = chance.choices(range(1, 6), weights=(1, 2, 4, 6, 3), k=VOTES)
    return zip(pitches, voters, scores, chain(range(EPOCH, EPOCH + VOTES * 50, 50)), strict=True)


def _prose(chance: random.Random, words: list[str], length: int) -> str:
    drawn = chance.choices(words, k=length)
    sentences = (" ".join(drawn[at : at + 13]).capitalize() for at in range(0, length, 13))
    return ". ".join(sentences) + "."
