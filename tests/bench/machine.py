"""What a figure is worth nothing without: the machine, the versions, the commit."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VERSIONS = {
    "nginx": ("nginx", "-v"),
    "haproxy": ("haproxy", "-v"),
    "varnish": ("varnishd", "-V"),
    "wrk": ("wrk", "-v"),
    "h2load": ("h2load", "--version"),
}


def facts() -> dict[str, str]:
    """In the order in which they are shown."""
    memory = available_memory("MemTotal") / 2**30
    found = {
        "commit": commit(),
        "cpu": f"{_cpu_model()}, {os.cpu_count()} cores",
        "memory": f"{memory:.1f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }
    for package in ("aiohttp", "uvloop", "lmdb", "brotli"):
        found[package] = importlib.metadata.version(package)
    return found | {name: v for name in VERSIONS if (v := version(name))}


def version(name: str) -> str | None:
    """The number a program gives for itself; None where there is no such program."""
    command = VERSIONS[name]
    if shutil.which(command[0]) is None:
        return None
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    number = re.search(r"(\d+\.\d+(?:\.\d+)?)", ran.stdout + ran.stderr)
    return number[1] if number else "?"


def commit() -> str:
    """The short id, marked where the product's files differ from it."""
    try:
        name = _git("rev-parse", "--short", "HEAD")
        changed = _git("status", "--porcelain", "--", "edgeproxy")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{name}, with changes" if changed else name


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True, timeout=10
    ).stdout.strip()


def _cpu_model() -> str:
    text = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return model[1].strip() if model else platform.machine()


def available_memory(field: str = "MemAvailable") -> int:
    """Octets."""
    found = re.search(rf"^{field}:\s+(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def supported() -> bool:
    return sys.platform == "linux"
