"""What Snakemake may believe of files that are there: those that its own record vouches for.

Snakemake takes any file of the right name for the output of its last job: also what DVC wrote or checked out since, or
what has no record at all. And it looks at an input only if that is newer than the outputs. So a job runs again here
unless the record knows each of its outputs by its time, and the inputs that no stage makes by their content.
"""

import hashlib
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

from snakemake.io import IOFile
from snakemake.logging import logger

from stages import WILDCARD, Stage, files_in


def forcing(inputs: Callable, workflow, stages: dict[str, Stage]) -> Callable:
    """`inputs`, whose input functions also force their job where the record does not vouch for its outputs.

    Input functions are called while Snakemake plans, before it asks which jobs are forced. The processes that run
    single jobs, of a cluster for example, have been told what to run.
    """
    strange: list[str] = []

    def forced_inputs(stage: Stage, config: dict):
        resolve = inputs(stage, config)

        def resolve_and_force(wildcards) -> list[str]:
            paths = resolve(wildcards)
            if workflow.is_main_process:
                outs = [out.format(**dict(wildcards.items())) for out in stage.outs]
                sources = files_in([dep for dep in stage.deps if not WILDCARD.search(dep)])  # that no stage makes
                if found := [out for out in outs if os.path.lexists(out) and not vouched(workflow, out, sources)]:
                    workflow.dag.forcefiles.update(outs)
                    if not strange:
                        logger.warning(
                            f"{found[0]} is not as Snakemake's last job left it, so it is made again, and all others "
                            "of this kind; if DVC made them, `make adopt-dvc` tells Snakemake that they are current"
                        )
                    strange.extend(found)
            return paths

        return resolve_and_force

    return forced_inputs


def vouched(workflow, out: str, sources: list[str]) -> bool:
    """Whether the file `out` is as a job left it that read `sources` as they are now.

    Snakemake takes the checksums of inputs when the job has ended: not of what it read, if that was edited meanwhile.
    """
    record = workflow.persistence.metadata(IOFile(out))
    if record is None or not record.endtime == os.lstat(out).st_mtime >= Path(out).stat().st_mtime:
        return False
    if any(record.starttime <= Path(path).stat().st_mtime <= record.endtime for path in sources if Path(path).exists()):
        return False
    read = record.input_checksums or {}  # without those over the limit of max-checksum-file-size
    return all(read[path] == checksum(path) for path in sources if path in read)


@cache
def checksum(path: str) -> str | None:
    """As Snakemake writes it."""
    try:
        return f"sha256:{hashlib.sha256(Path(path).read_bytes()).hexdigest()}"
    except FileNotFoundError:
        return None  # Snakemake names what is missing
