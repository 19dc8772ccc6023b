"""Record which versions of the packages that decide results are installed: workflow/versions.yaml, in git.

Every stage depends on them, and refuses to run with others.
"""

import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

RECORD = Path("workflow/versions.yaml")
HEAD = "# The versions that decide the numbers and bytes of outputs; `make versions` writes what is installed.\n"
PACKAGES = (
    "constriction",  # the code of coded files
    "diffusers",
    "efficientnet-lite-pytorch",  # its weights are known by their hash
    "einops",
    "jinja2",
    "kiwisolver",  # lays out the figures
    "markupsafe",  # escapes what the page shows
    "matplotlib",
    "numpy",
    "pillow",
    "pytorch-fid",
    "safetensors",
    "scikit-learn",
    "scipy",
    "torch",
    "torchvision",
)
# PyTorch's own builds of one version, with and without CUDA: 2.12.1+cpu is 2.12.1, as for requirements.lock.
BUILD = re.compile(r"\+(?:cpu|cu\d+)$")


def installed() -> dict[str, str]:
    """By package. Ends the program if one is missing: no stage could run."""
    try:
        return {package: BUILD.sub("", version(package)) for package in PACKAGES}
    except PackageNotFoundError as error:
        sys.exit(f"error: {error.name} is not installed; pip install --constraint requirements.lock --editable .")


def refresh() -> None:
    """Write the record anew if it is not what is installed, with one line on stderr for every change."""
    before = RECORD.read_text(encoding="utf-8", errors="replace") if RECORD.exists() else ""
    found = installed()
    text = HEAD + "".join(f'{package}: "{one}"\n' for package, one in found.items())
    if text == before:
        return
    recorded = dict(re.findall(r'^([\w.-]+): "(.*)"$', before, flags=re.M))
    for package in sorted(recorded.keys() | found.keys()):
        old, new = recorded.get(package, "none"), found.get(package, "none")
        if old != new:
            print(f"{package} {old} → {new}: every stage depends on it and runs again", file=sys.stderr)
    temporary = RECORD.with_suffix(".new")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(RECORD)


if __name__ == "__main__":
    refresh()
