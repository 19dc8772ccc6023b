"""Record which variants each active profile runs: workflow/runs.yaml, in git. DVC makes its stages of it.

The stage `params` refuses a record that is not as params.yaml says.
"""

from pathlib import Path

import yaml

import folders
from stages import load, resolved, write

RECORD = Path("workflow/runs.yaml")
HEAD = "# What the active profiles of params.yaml run: `make runs` writes it, and so do `make repro` and Snakemake.\n"


def text(plan: dict) -> str:
    """One line for each pair of a profile and a variant; again those that learn once stored, or are exported."""
    runs = plan["runs"]
    recovered = {name: run for name, run in runs.items() if run["stored"] == "recover"}
    exported = {name: runs[name] for name in plan["exported"]}
    return "".join([HEAD, listed("runs", runs), listed("recovered", recovered), listed("exported", exported)])


def listed(key: str, runs: dict[str, dict[str, str]]) -> str:
    lines = [f"  {name}: {yaml.safe_dump(run, default_flow_style=True, width=1000)}" for name, run in runs.items()]
    return "".join([f"{key}:\n", *lines]) if lines else f"{key}: {{}}\n"


def refresh(plan: dict) -> None:
    """Write the record anew if it is another one; `plan` is what `stages.resolved` says."""
    if not RECORD.exists() or RECORD.read_bytes() != text(plan).encode():
        write(RECORD, text(plan))


if __name__ == "__main__":
    folders.refresh()
    refresh(resolved(load()["params"]))
