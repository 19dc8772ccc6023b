"""A pipeline of stub stages under the repository's own Snakefile, and what each of its files would be if made now."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import stub
import yaml

import active_runs
from engines import planned_jobs
from tiny import ROOT

ENGINE = ("Snakefile", "envs", "profiles", "versions.yaml", "folders.yaml")
ENGINE += tuple(
    f"{name}.py"
    for name in (
        "stages",
        "versions",
        "vouch",
        "adopt",
        "alone",
        "record",
        "active_runs",
        "untold",
        "reported",
        "folders",
    )
)
PROFILE, VARIANT = "${item.profile}", "${item.variant}"
RUNS = "workflow/runs.yaml"
SETTINGS = "data/P/params.json"  # what the first stage makes of params.yaml
# A stage: of what there is one, its inputs, parameters and outputs, of which those of `reports` are in git.
STAGES = {
    "dataset": ("profile", ["raw"], ["dataset"], ["data/P/dataset.txt"]),  # a folder that no stage makes
    "train": ("profile", ["data/P/dataset.txt"], ["train"], ["data/P/model.txt", "reports/P/loss.txt"]),
    "quantize": ("profile variant", ["data/P/model.txt"], ["V"], ["data/P/quantize/V.txt"]),
    "evaluate": (
        "profile variant",
        ["data/P/quantize/V.txt", "data/P/quantize/a.txt", "data/P/dataset.txt"],
        ["evaluate"],
        ["data/P/evaluate/V.txt"],
    ),
    "report": ("profile", ["data/P/evaluate", "reports/P/loss.txt"], ["variants"], ["reports/P/metrics.txt"]),
}
SOURCES = [f"src/{name}.txt" for name in STAGES]
COMMON = "src/common.txt"  # of all stages
RAW = ["raw/0.txt", "raw/1.txt", "raw/2.txt"]
BLOCKS = ("dataset", "train", "evaluate")
PARAMS = {
    "active": ["p"],
    "variants": {"a": {"x": 0}, "b": {"x": 0}},
    "profiles": {name: {"threads": 1} | {block: {"x": 0} for block in BLOCKS} for name in ("p", "q")},
}


def declaration(name: str) -> dict:
    """The stage as dvc.yaml says it."""
    of, deps, params, outs = STAGES[name]

    def filled(paths: list[str]) -> list[str]:
        return [path.replace("P", PROFILE).replace("V", VARIANT) for path in paths]

    deps = filled(deps)
    keys = [f"program.{name}", *(f"variants.{VARIANT}" if key == "V" else key for key in params)]
    (settings,) = filled([SETTINGS])
    item = f"{name}@{PROFILE}" + (f"-{VARIANT}" if "variant" in of else "")
    words = ["src/stage.py", "--name", item, "--deps", *deps, "--settings", settings, "--params", *keys]
    words += ["--outs", *filled(outs)]
    kept = [path for path in filled(outs) if path.startswith("data/")]
    in_git = [{path: {"cache": False}} for path in filled(outs) if not path.startswith("data/")]
    stage = {"cmd": " ".join(words), "deps": deps, "params": [{settings: keys}], "outs": kept, "metrics": in_git}
    return {"foreach": "${runs}", "do": stage} if "variant" in of else {"matrix": {"profile": "${active}"}} | stage


def first_stage() -> dict:
    """The stage `params` as dvc.yaml says it."""
    out = SETTINGS.replace("P", PROFILE)
    return {
        "matrix": {"profile": "${active}"},
        "cmd": f"python src/resolve.py --params params.yaml --profile {PROFILE} --runs {RUNS} --out {out}",
        "deps": ["src", "params.yaml", RUNS],
        "outs": [out],
    }


class Pipeline:
    """A folder with the pipeline, and its commands run by the engines of `shims` (see warm.py)."""

    def __init__(self, folder: Path, shims: Path):
        self.folder, self.shims = folder, shims
        for name in ENGINE:
            source, target = ROOT / "workflow" / name, folder / "workflow" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if source.is_dir() else shutil.copyfile)(source, target)
        for name in (".dvc/config", ".dvcignore", ".gitignore"):
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
        stages = {"params": first_stage()} | {name: declaration(name) for name in STAGES}
        self.write("dvc.yaml", yaml.safe_dump({"vars": [RUNS], "stages": stages}, sort_keys=False))
        for name in (COMMON, *SOURCES, *RAW[:2]):
            self.write(name, "0")
        self.write("src/stage.py", f"#!{sys.executable} -SE\n" + Path(stub.__file__).read_text())
        (folder / "src/stage.py").chmod(0o755)
        shutil.copyfile(Path(__file__).with_name("resolve.py"), folder / "src/resolve.py")
        self.write_params(PARAMS)
        self.record_runs()
        subprocess.run(["git", "init", "-q"], cwd=folder, check=True)

    def commit(self) -> None:
        who = ("-c", "user.name=test", "-c", "user.email=test@localhost")
        for words in (["add", "-A"], [*who, "commit", "-q", "-m", "all"]):
            subprocess.run(["git", *words], cwd=self.folder, check=True)

    def write(self, path: str, text: str) -> None:
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_text(text)

    def read(self, path: str) -> str | None:
        file = self.folder / path
        return file.read_text() if file.is_file() else None

    def write_params(self, params: dict) -> None:
        self.write("params.yaml", json.dumps(params))

    def record_runs(self) -> None:
        """As `make runs` does."""
        plan = {"runs": stub.runs(self.params, self.folder / "src"), "exported": []}
        self.write(RUNS, active_runs.text(plan))

    @property
    def params(self) -> dict:
        return json.loads(self.read("params.yaml"))

    def call(self, *command: str) -> subprocess.CompletedProcess:
        environment = {
            "PATH": f"{self.shims}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.folder),
            "LANG": "C.UTF-8",
        }
        return subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False, timeout=300
        )

    def jobs(self) -> dict[str, dict[str, list[str]]]:
        """Every job with its inputs, parameters and outputs, in an order in which they can run."""
        found = {}
        variants = self.settings_now()["order"]
        for name in STAGES:
            declared = declaration(name)
            command = declared.get("do", declared)["cmd"].replace(PROFILE, "p")
            for variant in variants if VARIANT in command else [""]:
                given = stub.options(command.replace(VARIANT, variant))
                found[given["name"][0]] = given
        return found

    def expected(self) -> dict[str, str]:
        """What every output would be if everything were made now."""
        made: dict[str, str] = {}
        for job in self.jobs().values():
            made |= self.would_write(job, made)
        return made

    def settings(self) -> str:
        """What the stage `params` would write now."""
        return json.dumps(self.settings_now(), indent=1, sort_keys=True) + "\n"

    def settings_now(self) -> dict:
        return stub.settings(self.params, "p", self.folder / "src")

    def would_write(self, job: dict[str, list[str]], made: dict[str, str] | None = None) -> dict[str, str | None]:
        """What `job` would write, None if an input is missing.

        With `made`, its inputs are those in it and its settings those of params.yaml and the source as they are now;
        without, all that is there.
        """
        found = self.read(SETTINGS.replace("P", "p"))
        settings = json.loads(found) if made is None and found else self.settings_now()
        paths = [path for dep in job["deps"] for path in stub.files(dep, settings, self.folder)]
        deps = {path: (made or {}).get(path) or self.read(path) for path in paths}
        values = {key: stub.look_up(settings, key) for key in job["params"]}
        whole = None not in deps.values()
        return {out: stub.content(out, deps, values) if whole else None for out in job["outs"]}

    def changed_for_dvc(self) -> set[str]:
        """The stages `dvc status` names."""
        result = self.call("dvc", "status")
        assert result.returncode == 0, result.stdout + result.stderr
        return set(re.findall(r"^(\S+@\S+):$", result.stdout, flags=re.MULTILINE))

    def known_to_dvc(self) -> set[str]:
        """The jobs of the runs that are recorded, which a plain `dvc` goes by."""
        recorded = yaml.safe_load(self.read(RUNS))["runs"]
        return {name for name in self.jobs() if "-" not in name or name.split("@")[1] in recorded}

    def planned_by_snakemake(self) -> set[str]:
        """The jobs `snakemake --dry-run` lists, named as DVC names them."""
        result = self.call("snakemake", "--dry-run")
        assert result.returncode == 0, result.stdout + result.stderr
        return planned_jobs(result.stdout)
