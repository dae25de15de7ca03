"""``edgeproxy purge``: have a running edgeproxy forget (or mark stale) what it stored.

Rules of this file: flags in, one call, text out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgeproxy.cli import client

if TYPE_CHECKING:
    import argparse

_KINDS = (
    ("url", "URL", "one URL, all its variants: a target such as /api/pitches/1, or with http://host"),
    ("tag", "TAG", "everything that carries this tag"),
    ("prefix", "PREFIX", "every target that begins so"),
    ("pattern", "PATTERN", "every target that matches; * stands for anything: '/api/*/photos'"),
)
_GOOD = ("ok", "cut off")
"""What nodes say that serve nothing old: one that is cut off serves nothing from memory."""
_EPILOG = "Exit codes: 0 purged (or counted), 1 refused, or not told to every layer or node, 2 wrong usage."


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "purge",
        help="purge by URL, tag, prefix, pattern, or everything",
        description="Purge from a running edgeproxy. When the command returns, what was purged is not served "
        "any more, fetches under way included.",
        epilog=_EPILOG,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    for name, metavar, text in _KINDS:
        what.add_argument(f"--{name}", metavar=metavar, help=text)
    what.add_argument("--all", action="store_true", help="everything")
    parser.add_argument(
        "--soft", action="store_true", help="mark stale instead: may be served while it is refreshed"
    )
    parser.add_argument("--dry-run", action="store_true", help="only say how many objects and bytes")
    client.add_flags(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    return client.guarded(lambda: _purge(args))


def _purge(args: argparse.Namespace) -> int:
    body: dict[str, object] = {"soft": args.soft, "dry_run": args.dry_run}
    what = "everything"
    if args.all:
        body["all"] = True
    else:
        name, value = next((n, getattr(args, n)) for n, _, _ in _KINDS if getattr(args, n) is not None)
        if not value:
            raise client.Usage(f"--{name}: empty; to purge everything, say --all")
        body[name] = value
        what = f"{name} {client.printable(value)}"
    answer = client.call(args, "POST", "/api/cache/purge", body, accept=(200, 503, 504))
    receipt = answer.body
    if not isinstance(receipt, dict) or "layers" not in receipt:
        raise client.Failed(f"refused ({answer.status})")
    print(_told(what, receipt, soft=args.soft, dry_run=args.dry_run))
    missing = {layer: said for layer, said in receipt["layers"].items() if said != "ok"}
    if missing and not args.dry_run:
        raise client.Failed(
            "not every layer was told, so old answers may still come from there: "
            + ", ".join(f"{layer}: {said}" for layer, said in missing.items())
        )
    silent = [
        f"{node['node']}: {node['said']}" for node in receipt.get("nodes", ()) if node["said"] not in _GOOD
    ]
    if silent:
        raise client.Failed(
            "not every node has answered, so old answers may still come from there: " + ", ".join(silent)
        )
    return 0


def _told(what: str, receipt: dict[str, Any], *, soft: bool, dry_run: bool) -> str:
    done = {
        (False, False): "purged",
        (True, False): "marked stale",
        (False, True): "would purge",
        (True, True): "would mark stale",
    }[soft, dry_run]
    objects, size = receipt.get("objects"), receipt.get("bytes")
    if isinstance(objects, int):
        counted = client.counted(objects, "object")
        if isinstance(size, int | float):
            counted += f", {client.octets(size)}"
    else:
        counted = "objects not counted"
    layers = ", ".join(f"{layer} {said}" for layer, said in receipt["layers"].items())
    number = "" if receipt.get("number") is None else f"purge {receipt['number']}"
    nodes = client.counted(len(receipt["nodes"]), "node") if receipt.get("nodes") else ""
    aside = "; ".join(part for part in (number, layers, nodes) if part)
    return client.printable(f"{done} {what}: {counted}" + (f" ({aside})" if aside else ""))
