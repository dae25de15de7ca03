"""The load generators: wrk for all that a server can give, h2load for a steady rate.

Rules of this file:

- A run that says nothing usable is an error, never a zero.
- One thread on core 1, as the issue has it; the program itself runs there and waits.
"""

from __future__ import annotations

import math
import os
import signal
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.bench.processes import Unusable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

CONNECTIONS = 64


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk saw. Times in microseconds; ``octets`` received, heads included; ``failed`` are answers of 400
    and above, ``broken`` connections and timeouts."""

    requests: int
    micros: int
    octets: int
    p50: int
    p99: int
    failed: int
    broken: int

    @property
    def rate(self) -> float:
        return self.requests / max(self.micros, 1) * 1e6


@dataclass(frozen=True, slots=True)
class Paced:
    """What h2load saw at a steady rate. Times in microseconds."""

    requests: int
    failed: int
    rate: float
    p50: int
    p99: int


def wrk(port: int, script: Path, seconds: int, connections: int = CONNECTIONS) -> Load:
    """Raises Unusable."""
    argv = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(script), f"http://127.0.0.1:{port}/"]
    return parse_wrk(_run(argv, seconds).stdout)


def _run(argv: list[str], seconds: int) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            argv, capture_output=True, text=True, check=False, timeout=seconds + 30, start_new_session=True
        )
    except subprocess.TimeoutExpired:
        raise Unusable(f"{argv[0]} did not end {seconds + 30} s after its start") from None


def fill(port: int, script: Path, seconds: int = 900, connections: int = CONNECTIONS) -> Load:
    """Run a script that prints FILLED when it is through. Raises Unusable where it is not in time."""
    argv = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(script), f"http://127.0.0.1:{port}/"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            assert process.stdout is not None
            said = []
            for line in process.stdout:
                said.append(line)
                if line.startswith("FILLED"):
                    # wrk sleeps out its time else: its answer to SIGINT is to stop and to report.
                    os.kill(process.pid, signal.SIGINT)
        finally:
            if process.poll() is None:
                process.kill()
    if not any(line.startswith("FILLED") for line in said):
        raise Unusable(f"filling was not through after {seconds} s: {''.join(said)[-500:]}")
    return parse_wrk("".join(said))


def parse_wrk(output: str) -> Load:
    """Of the line that the scripts' ``done`` prints. Raises Unusable."""
    for line in output.splitlines():
        if line.startswith("RESULT "):
            numbers = line.split()[1:]
            if len(numbers) == 7:
                try:
                    return Load(*map(int, numbers))
                except ValueError:
                    break
    raise Unusable(f"wrk said nothing usable: {output[-500:]!r}")


def h2load(
    port: int, directory: Path, paths: Sequence[str], *, rate: float | None, seconds: int, head: Sequence[str]
) -> Paced:
    """``rate`` requests a second in all, None for as many as it can; ``head`` are lines "name: value". Raises
    Unusable."""
    urls, log = directory / "urls", directory / "h2load.log"
    urls.write_text("".join(f"http://127.0.0.1:{port}{path}\n" for path in paths))
    log.unlink(missing_ok=True)
    argv = ["h2load", "--h1", "-t1", f"-c{CONNECTIONS}", f"-D{seconds}", f"--log-file={log}", f"-i{urls}"]
    argv += [f"-H{line}" for line in head]
    if rate is not None:
        argv.append(f"--rps={rate / CONNECTIONS:.3f}")
    ran = _run(argv, seconds)
    if ran.returncode or not log.exists():
        raise Unusable(f"h2load: {(ran.stderr or ran.stdout)[-500:]!r}")
    return parse_h2load(log.read_text())


def parse_h2load(text: str) -> Paced:
    """Of its log: a line a request with the start, the status and the time, in microseconds (docs of
    ``--log-file``). The first tenth is left out, as warming up. Raises Unusable."""
    lines = [line.split("\t") for line in text.splitlines()]
    try:
        seen = sorted((int(start), int(status), int(took)) for start, status, took in lines)
    except ValueError:
        raise Unusable(f"h2load wrote a log that cannot be read: {text[:200]!r}") from None
    if not seen:
        raise Unusable("h2load made no requests")
    begun, ended = seen[0][0], seen[-1][0]
    kept = [row for row in seen if row[0] >= begun + (ended - begun) // 10]
    times = sorted(took for _, _, took in kept)
    return Paced(
        requests=len(kept),
        failed=sum(not 200 <= status < 400 for _, status, _ in kept),
        rate=len(kept) / max(1, ended - kept[0][0]) * 1e6,
        p50=percentile(times, 50),
        p99=percentile(times, 99),
    )


def percentile(times: Sequence[int], share: float) -> int:
    """Of sorted ``times``: the smallest that ``share`` percent do not exceed."""
    return times[max(0, math.ceil(len(times) * share / 100) - 1)]
