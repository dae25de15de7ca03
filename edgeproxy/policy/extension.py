"""Whether an answer is what the extension of its path says it is: the guard against cache deception.

Rules of this file:

- A page of one user under a name such as ``/account/x.css`` is how a cache is made to store and share it: the
  origin answers with the account, a rule sees a stylesheet. So what is not of a type that the extension
  stands for is not shared where the guard is on.
- The extension is looked for as the loosest server would: percent-escapes undone (twice written ones too),
  the last segment, with and without what follows ";", without dots and spaces at its end.
- An answer that names no type is not shown to be what the extension says; octet-stream is any file.
"""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import unquote

_IMAGE = ("image/*",)
_FONT = ("font/*", "application/font*", "application/x-font*", "application/vnd.ms-fontobject")
_SOUND = ("audio/*", "video/*", "application/ogg")
_ZIPPED = ("application/*zip*", "application/x-tar", "application/x-compressed*", "application/vnd.rar",
           "application/x-rar*", "application/x-bzip*", "application/x-xz", "application/zstd")  # fmt: skip
_OFFICE = ("application/vnd.ms-*", "application/vnd.openxmlformats*", "application/vnd.oasis.*",
           "application/ms*", "application/rtf", "text/rtf")  # fmt: skip

TYPES: dict[str, tuple[str, ...]] = {
    "css": ("text/css",),
    **dict.fromkeys(("js", "mjs", "cjs"), ("*/*javascript", "*/*ecmascript")),
    **dict.fromkeys(("png", "jpg", "jpeg", "gif", "webp", "avif", "bmp", "ico", "cur", "tif", "tiff"),
                    _IMAGE),
    **dict.fromkeys(("svg", "svgz"), ("image/svg+xml",)),
    **dict.fromkeys(("woff", "woff2", "ttf", "otf", "eot"), _FONT),
    **dict.fromkeys(("mp3", "mp4", "m4a", "m4v", "ogg", "oga", "ogv", "opus", "wav", "flac", "mid", "midi",
                     "webm", "mkv", "avi", "mov"), _SOUND),
    **dict.fromkeys(("zip", "gz", "tgz", "tar", "bz2", "xz", "7z", "rar", "zst"), _ZIPPED),
    **dict.fromkeys(("doc", "docx", "xls", "xlsx", "ppt", "pptx", "odt", "ods", "odp", "rtf"), _OFFICE),
    "pdf": ("application/pdf", "application/x-pdf"),
    "wasm": ("application/wasm",),
    "swf": ("application/x-shockwave-flash",),
    "csv": ("text/csv", "text/plain", "application/csv", "application/vnd.ms-excel"),
    "map": ("application/json", "*/*javascript", "text/plain"),
}  # fmt: skip
"""Extension -> the media types that it stands for; "*" is any run of characters."""
_ANY_FILE = "application/octet-stream"
_UNDONE = 3
"""How often percent-escapes are undone."""


def contradicts(path: str, content_type: str | None) -> bool:
    """Whether an answer of this type is not what the path's extension says. ``content_type``: the field's
    value, None where there is none."""
    ending = extension(path)
    if not ending:
        return False
    kind = (content_type or "").partition(";")[0].strip().lower()
    return kind != _ANY_FILE and not any(pattern.fullmatch(kind) for pattern in _patterns(ending))


def extension(path: str) -> str:
    """The one of TYPES that the path may be taken to end in, in lower case; "" where there is none."""
    for _ in range(_UNDONE):
        if "%" not in path:
            break
        path = unquote(path, "latin-1")
    last = path.replace("\\", "/").rstrip("/. ").rpartition("/")[2]
    for name in (last, last.partition(";")[0]):
        ending = name.rstrip(". ").rpartition(".")[2].lower()
        if ending in TYPES and "." in name:
            return ending
    return ""


@lru_cache(maxsize=len(TYPES))
def _patterns(ending: str) -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(re.escape(each).replace(r"\*", ".*")) for each in TYPES[ending])
