"""A stage of the stub pipeline: every output is a hash of what decides it. `disturb.json` says what happens in it."""

import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path


def content(out: str, deps: dict[str, str], params: dict) -> str:
    """What a stage writes to `out`, given the text of its inputs and the values of its parameters."""
    return hashlib.sha256(json.dumps([out, deps, params], sort_keys=True).encode()).hexdigest() + "\n"


def settings(params: dict, profile: str, sources: Path = Path("src")) -> dict:
    """What the stage `params` makes of params.yaml and of the source for a profile."""
    programs = {file.stem: program(file) for file in sources.glob("*.txt")}
    named = params["profiles"][profile].get("variants", params["variants"])
    variants = {name: block for name, block in params["variants"].items() if name in named}
    return params["profiles"][profile] | {
        "profile": profile,
        "order": list(variants),
        "variants": variants,
        "recoveries": {},
        "program": programs,
    }


def runs(params: dict, sources: Path = Path("src")) -> dict[str, dict[str, str]]:
    """What the active profiles run."""
    return {
        f"{profile}-{variant}": {"profile": profile, "variant": variant, "stored": "quantize"}
        for profile in params["active"]
        for variant in settings(params, profile, sources)["order"]
    }


def program(file: Path) -> str:
    """A hash of the code of the stage that `file` belongs to."""
    code = [path.read_text() for path in (file, file.with_name("common.txt"))]
    return hashlib.sha256(json.dumps(code).encode()).hexdigest()


def look_up(params: dict, key: str):
    for name in key.split("."):
        params = params[name]
    return params


def files(dep: str, params: dict, here: Path = Path()) -> list[str]:
    """A folder of `data` holds one file per variant, another one what is there."""
    if Path(dep).suffix:
        return [dep]
    if dep.startswith("data"):
        return [f"{dep}/{name}.txt" for name in params["variants"]]
    return sorted(str(path.relative_to(here)) for path in (here / dep).iterdir())


def options(command: str) -> dict[str, list[str]]:
    """`--name word word ...` as lists by name."""
    return {part.split()[0]: part.split()[1:] for part in f" {command}".split(" --")[1:]}


def disturbance(name: str, moment: str) -> None:
    file = Path("disturb.json")
    if not file.exists() or (wanted := json.loads(file.read_text()))["name"] != name or wanted["moment"] != moment:
        return
    file.unlink()
    if wanted["how"] == "edit":
        time.sleep(0.01)  # another time than that of what was there
        Path(wanted["path"]).write_text(wanted["text"])
        return
    if wanted["how"] == "kill":
        os.kill(int(os.environ["ENGINE_PID"]), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)
    sys.exit(f"error: {name} {wanted['how']}s")


def main() -> None:
    given = options(" ".join(sys.argv[1:]))
    (name,) = given["name"]
    disturbance(name, "before it reads")
    params = json.loads(Path(given["settings"][0]).read_text())
    code = Path(f"src/{name.partition('@')[0]}.txt")
    runs_by = program(code)
    if look_up(params, f"program.{code.stem}") != runs_by:
        sys.exit(f"error: the code of {name} has changed since")
    deps = {path: Path(path).read_text() for dep in given["deps"] for path in files(dep, params)}
    values = {key: look_up(params, key) for key in given["params"]} | {f"program.{code.stem}": runs_by}
    disturbance(name, "before it writes")
    for number, out in enumerate(given["outs"]):
        if number:
            disturbance(name, "between two files")
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        Path(out).write_text(content(out, deps, values))
    disturbance(name, "at its end")
    if program(code) != runs_by:
        sys.exit(f"error: {code} was changed while the stage ran")


if __name__ == "__main__":
    main()
