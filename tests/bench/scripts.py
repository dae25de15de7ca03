"""The scripts that wrk runs: what is asked for, written out as Lua before each run.

Rules of this file:

- A request is a line and one of a few header blocks; both are made before the clock runs, where the workload
  lets them be.
- What is never to be seen again carries a stamp of the run and a count.
- Every script ends with one line, RESULT and seven numbers (load.py reads it).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.bench.probe import HOST

if TYPE_CHECKING:
    from collections.abc import Sequence

HEADER_SETS = 20


def header_blocks(extra: str = "") -> list[str]:
    """As browsers and services send them: they differ in User-Agent and length. ``extra``: lines to add."""
    return [
        f"Host: {HOST}\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.{number} "
        f"(KHTML, like Gecko) Chrome/{120 + number}.0 Safari/537.36\r\nAccept: application/json\r\n"
        f"Accept-Language: en-GB,en;q=0.9\r\n{extra}\r\n"
        for number in range(HEADER_SETS)
    ]


_RESULT = """
done = function(s, l, r)
  io.write(string.format("RESULT %d %d %d %d %d %d %d\\n", s.requests, s.duration, s.bytes,
    l:percentile(50), l:percentile(99), s.errors.status,
    s.errors.connect + s.errors.read + s.errors.write + s.errors.timeout))
end
"""

_ONE = """
local whole = "GET " .. path .. " HTTP/1.1\\r\\n" .. blocks[1]
request = function() return whole end
"""

# The cube makes few URLs popular: of 1,000, the first 10 get a fifth of the requests.
_MANY = """
local lines = {}
for i = 0, urls - 1 do lines[i] = string.format("GET %s%06d HTTP/1.1\\r\\n", path, i) end
request = function()
  return lines[floor(random() ^ 3 * urls)] .. blocks[random(sets)]
end
"""

_MIXED = """
local lines, fresh = {}, 0
for i = 0, urls - 1 do lines[i] = string.format("GET %s%06d HTTP/1.1\\r\\n", path, i) end
request = function()
  if random(10) == 1 then
    fresh = fresh + 1
    return string.format("GET %s%s-%08d HTTP/1.1\\r\\n", path, stamp, fresh) .. blocks[random(sets)]
  end
  return lines[floor(random() ^ 3 * urls)] .. blocks[random(sets)]
end
"""

_NEW = """
local fresh = 0
request = function()
  fresh = fresh + 1
  return string.format("GET %s%s-%08d HTTP/1.1\\r\\n", path, stamp, fresh) .. blocks[random(sets)]
end
"""

_COOKIES = """
local lines, starts, fresh = {}, {}, 0
for i = 0, urls - 1 do lines[i] = string.format("GET %s%06d HTTP/1.1\\r\\n", path, i) end
for i = 1, sets do starts[i] = string.sub(blocks[i], 1, -3) .. "Cookie: sid=" .. stamp .. "-" end
request = function()
  fresh = fresh + 1
  return lines[floor(random() ^ 3 * urls)] .. starts[random(sets)] .. string.format("%08d\\r\\n\\r\\n", fresh)
end
"""

# Once through all URLs with each header set, and a little further, so that the last answers are in when it
# says so.
_FILL = """
local n, over = 0, urls * sets + connections * 4
request = function()
  local i, j = n % urls, floor(n / urls) % sets
  n = n + 1
  if n == over then io.write("FILLED\\n") io.flush() end
  return string.format("GET %s%06d HTTP/1.1\\r\\n", path, i) .. blocks[j + 1]
end
"""

KINDS = {"one": _ONE, "many": _MANY, "mixed": _MIXED, "new": _NEW, "cookies": _COOKIES, "fill": _FILL}


def script(
    kind: str,
    *,
    path: str,
    urls: int,
    stamp: str,
    seed: int,
    connections: int,
    extra: Sequence[str] = (),
    sets: int = HEADER_SETS,
) -> str:
    """The Lua text. ``extra`` are lines "Name: value" of every request; ``sets`` how many header sets."""
    blocks = header_blocks("".join(f"{line}\r\n" for line in extra))[:sets]
    quoted = ",\n  ".join(json.dumps(block) for block in blocks)
    return f"""
local blocks = {{\n  {quoted}\n}}
local path, urls, stamp = {json.dumps(path)}, {urls}, {json.dumps(stamp)}
local sets, connections = {len(blocks)}, {connections}
local floor, random = math.floor, math.random
math.randomseed({seed})
{KINDS[kind]}{_RESULT}"""
