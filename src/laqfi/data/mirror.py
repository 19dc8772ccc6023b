"""The folder or URL in LAQFI_DATA_MIRROR, which is asked for a data set's files before their own server is."""

import re
from pathlib import Path
from urllib.parse import unquote

from laqfi.base.errors import LaqfiError

MIRROR = "LAQFI_DATA_MIRROR"


def urls(mirror: str) -> list[str]:
    """The mirror as torchvision takes it, none if it is a folder. Raises LaqfiError for a URL that it cannot ask."""
    scheme, is_url, _ = mirror.lower().partition("://")
    if not is_url or scheme == "file":
        return []
    if scheme not in ("http", "https", "ftp"):
        raise LaqfiError(
            f"{MIRROR}={mirror!r}: found {scheme!r}, allowed is a folder or a URL of file, ftp, http, https"
        )
    return [mirror.rstrip("/").replace(" ", "%20") + "/"]


def folder_of(mirror: str) -> Path:
    """The folder that a path or a URL `file://…` names. Raises LaqfiError if there is none."""
    url = re.match("file://(localhost(?=/))?", mirror, re.IGNORECASE)
    found = Path(unquote(mirror[url.end() :]) if url else mirror).expanduser()
    if not found.is_dir():
        raise LaqfiError(f"{MIRROR}={mirror!r}: no such folder; allowed is a folder or a URL")
    return found
