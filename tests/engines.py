"""Both engines asked for what they would do, many times over: `python tests/engines.py QUESTION` in a repository.

Each is started once, for that takes longer than its answer. The answer is the last line of stdout, as JSON.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

World = dict[str, str]  # the files that differ from those of the repository: path to text


@contextmanager
def written(world: World) -> Iterator[None]:
    """The files of `world` in place; afterwards what was there, with the time it was there since."""
    before = {Path(name): (Path(name).read_bytes(), Path(name).stat()) for name in world}
    for name, text in world.items():
        Path(name).write_text(text)
    try:
        yield
    finally:
        for path, (content, found) in before.items():
            path.write_bytes(content)
            os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def dvc_changed(worlds: list[World]) -> list[list[tuple[str, str]]]:
    """In each world what `dvc status` says: a stage, and a file or a parameter of it that is not as in dvc.lock."""
    from dvc.repo import Repo

    repo, answers = Repo("."), []
    for world in worlds:
        with written(world):
            answers.append([(stage, what) for stage, reasons in repo.status().items() for what in names(reasons)])
    return answers


def names(reasons) -> Iterator[str]:
    """The innermost keys of a status, which is nested as reasons, files and parameters."""
    for reason in reasons if isinstance(reasons, list) else [reasons]:
        for name, inside in reason.items() if isinstance(reason, dict) else [(reason, None)]:
            yield from names(inside) if isinstance(inside, dict | list) else [name]


def snakemake_planned(worlds: list[World]) -> list[list[str]]:
    """In each world the jobs `snakemake --dry-run` would run, those further down included."""
    from snakemake.cli import main

    stages, answers = workflow(), []
    stages.subprocess = SimpleNamespace(run=settings_here)
    with suppress(SystemExit):
        main(["--list-rules"])  # imports what all children need
    for world in worlds:
        with written(world):
            answers.append(sorted(planned_jobs(forked(["--dry-run"]))))
    stages.write_settings(stages.load()["params"], stages.resolved(stages.load()["params"]))
    return answers


def planned_jobs(text: str) -> set[str]:
    """The jobs in what `snakemake --dry-run` prints, named as DVC names them."""
    jobs = re.findall(r"^(?:local)?rule (\w+):$(.*?)(?=^\[|^Job stats|\Z)", text, flags=re.M | re.S)
    found = {(rule, *re.findall(r"(?:profile|variant)=(\w+)", body)) for rule, body in jobs if rule != "all"}
    return {f"{rule}@{'-'.join(wildcards)}" for rule, *wildcards in found}


def workflow():
    """The module `stages` of this repository's workflow."""
    sys.path.insert(0, "workflow")
    import stages

    return stages


def settings_here(command: list[str], **_) -> subprocess.CompletedProcess:
    """The stage `params` in this process, which has imported PyTorch already."""
    from laqfi.stages import params

    printed, argv = StringIO(), sys.argv
    sys.argv = command[2:]
    try:
        with redirect_stdout(printed):
            params.main()
    except SystemExit as refusal:
        return subprocess.CompletedProcess(command, 1, "", str(refusal))
    finally:
        sys.argv = argv
    return subprocess.CompletedProcess(command, 0, printed.getvalue(), "")


def forked(arguments: list[str]) -> str:
    """What the command `snakemake` prints, run in a child of this process."""
    from snakemake.cli import main

    with tempfile.TemporaryFile("w+") as printed:
        if (child := os.fork()) == 0:
            os.dup2(printed.fileno(), 1)
            os.dup2(printed.fileno(), 2)
            try:
                main(arguments)
            except SystemExit as end:
                os._exit(end.code or 0)
            os._exit(1)
        _, status = os.waitpid(child, 0)
        printed.seek(0)
        assert status == 0, printed.read()
        printed.seek(0)
        return printed.read()


def dvc_jobs(_) -> dict[str, dict]:
    """All stages as DVC resolves them. A dependency on a folder is given as the outputs in it."""
    from dvc.repo import Repo

    repo, ours = Repo("."), workflow()
    stages = repo.index.stages
    settings = ours.resolved(ours.load()["params"])["profiles"]
    outs = [out.def_path for stage in stages for out in stage.outs]
    return {
        stage.addressing: {
            "cmd": stage.cmd,
            "deps": sorted(
                path
                for dep in set(stage.deps) - set(stage.params)
                for path in [out for out in outs if out.startswith(f"{dep.def_path}/")] or [dep.def_path]
            ),
            "outs": sorted(out.def_path for out in stage.outs),
            "params": {
                key: ours.look_up(settings[Path(dep.def_path).parent.name], key.split("."))
                for dep in stage.params
                for key in dep.params
            },
        }
        for stage in stages
    }


def snakemake_jobs(_) -> dict[str, dict]:
    """All jobs as Snakemake's rules make them, without where they log."""
    from snakemake.api import SnakemakeApi
    from snakemake.settings.types import DAGSettings, OutputSettings, Quietness, ResourceSettings

    with SnakemakeApi(OutputSettings(quiet={Quietness.ALL}, dryrun=True)) as api:
        made = api.workflow(ResourceSettings(cores=1), snakefile=Path("workflow/Snakefile"))
        made.dag(DAGSettings()).execute_workflow(executor="dryrun")
        return {
            f"{job.rule.name}@{'-'.join(job.wildcards_dict.values())}": {
                "cmd": job.shellcmd.removesuffix(f" > {job.log} 2>&1"),
                "deps": sorted(job.input),
                "outs": sorted(job.output),
                "params": json.loads(job.params[0]),
            }
            for job in made._workflow.dag.jobs
            if job.rule.name != "all"
        }


QUESTIONS = {function.__name__: function for function in (dvc_changed, snakemake_planned, dvc_jobs, snakemake_jobs)}

if __name__ == "__main__":
    print("\n" + json.dumps(QUESTIONS[sys.argv[1]](json.load(sys.stdin))))
