"""A page in headless Chromium: what a script finds there, what the console says, and a picture of it."""

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from html import unescape
from pathlib import Path

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MISSING = "needs chromium (Debian: apt-get install chromium)"
FOUND = re.compile(r'<pre id="found">(.*?)</pre>', re.DOTALL)
# What a browser reports of the page itself; its own troubles (no message bus, no graphics card) are logged otherwise.
CONSOLE = re.compile(r":CONSOLE[:(]")

FRAME = """<!doctype html>
<body style="margin: 0"><iframe width="{width}" height="{height}" style="border: 0" src="page.html"></iframe>
<pre id="found"></pre>
<script>addEventListener("message", (event) => (document.querySelector("#found").textContent = event.data));</script>
"""


@dataclass(frozen=True)
class Seen:
    """What the script returned, and the lines of the console."""

    found: dict
    console: list[str]


def chromium(folder: Path, width: int, height: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs it in `folder` with a home of its own there; no name is resolved, so nothing outside is reached."""
    options = [
        "--headless",
        "--disable-gpu",
        "--hide-scrollbars",
        "--no-first-run",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        "--enable-logging=stderr",
        f"--user-data-dir={folder / 'profile'}",
        f"--window-size={width},{height}",
        *(["--no-sandbox"] if os.geteuid() == 0 else []),
    ]
    return subprocess.run(
        [CHROMIUM, *options, *arguments], capture_output=True, text=True, timeout=120, check=True, env=home(folder)
    )


def home(folder: Path) -> dict[str, str]:
    return os.environ | {"HOME": str(folder), "XDG_CONFIG_HOME": str(folder), "XDG_CACHE_HOME": str(folder)}


def look(page: str, script: str, folder: Path, width: int, height: int = 900) -> Seen:
    """Opens the page, runs `script` in it, a function body that returns what JSON can hold, and says what it saw.

    The page is in a frame: a window of Chromium is never narrower than 500 pixels. Beside what the script returns
    `found` has the addresses of all `requests`.
    """
    body = (
        f"const seen = () => {{ {script} }}; addEventListener('load', () => parent.postMessage(JSON.stringify("
        "{ ...seen(), requests: performance.getEntriesByType('resource').map((one) => one.name) }), '*'));"
    )
    allowed = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
    text = page.replace("script-src ", f"script-src 'sha256-{allowed}' ", 1)
    (folder / "page.html").write_text(text.replace("</html>", f"<script>{body}</script></html>"), encoding="utf-8")
    frame = folder / "frame.html"
    frame.write_text(FRAME.format(width=width, height=height), encoding="utf-8")
    done = chromium(folder, max(width, 500), height, "--dump-dom", "--virtual-time-budget=5000", frame.as_uri())
    console = [line for line in done.stderr.splitlines() if CONSOLE.search(line)]
    result = FOUND.search(done.stdout)
    return Seen(json.loads(unescape(result[1])) if result and result[1] else {}, console)


def picture(page: str, folder: Path, width: int, height: int) -> Path:
    """A PNG of the page, half as large."""
    file, out = folder / "page.html", folder / "page.png"
    file.write_text(page, encoding="utf-8")
    chromium(folder, width, height, "--force-device-scale-factor=0.5", f"--screenshot={out}", file.as_uri())
    return out
