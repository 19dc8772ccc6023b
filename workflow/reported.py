"""What `snakemake --report` holds: the outputs that dvc.yaml describes; their descriptions are the captions."""

import hashlib
import re
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.io import report

from stages import RESOLVED, Stage, write

MARKUP = re.compile(r"([\\*`|_{}])")  # of reStructuredText, and of Jinja, which Snakemake fills captions with


def outputs(stage: Stage, workflow) -> list[str]:
    """Those of a stage; one with a description is marked for the report, by profile, kind and variant."""
    return [marked(out, stage.descriptions[out], workflow) if out in stage.descriptions else out for out in stage.outs]


def marked(out: str, description: str, workflow) -> str:
    name = Path(out).name
    if "{variant}" in name:
        kind, about = "Variants", {"variant": "{variant}"}
    elif name.endswith(".png"):
        kind, about = "Figures", {"figure": Path(out).stem}
    else:
        kind, about = "Numbers", {"file": name}

    def labels_of_current(wildcards) -> dict[str, str]:
        """Asked when the report is made, which shows the files that are there, however old."""
        if waiting := sorted({job.rule.name for job in workflow.dag.needrun_jobs()} - {"all"}):
            raise WorkflowError(
                f"there is no report of what is not current: `snakemake` runs {', '.join(waiting)} first"
            )
        return {"profile": "{profile}", **about}

    return report(out, caption=caption(description), category="{profile}", subcategory=kind, labels=labels_of_current)


def caption(description: str) -> str:
    """The file that holds it, as Snakemake wants captions."""
    text = MARKUP.sub(r"\\\1", description) + "\n"
    path = RESOLVED / f"captions/{hashlib.sha256(text.encode()).hexdigest()[:16]}.rst"
    if not path.exists():
        write(path, text)
    return str(path.resolve())
