"""How many small faults the unit tests notice: mutants drawn by a seed, each tried by the tests of its module.

`TESTS` says which files of tests/unit belong to which module, the most likely to notice first. A new module gets its
line here, and a new test file is added to the modules it is about; a module or test file that is missing stops the run.

A mutant lives in a copy of the source in a temporary folder; the working tree is never touched. It is caught when a
test fails or when the tests take much longer than without it. Results are written after every mutant.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from tempfile import TemporaryDirectory

from sites import Mutant, draw
from tqdm import tqdm

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src/laqfi"
UNIT = ROOT / "tests/unit"
WINGS = ["quant", "storage", "sensitivity", "quality", "diffusion", "sampling", "models"]
NEEDED = 0.85
TESTS = {
    "diffusion/params": "params",
    "diffusion/process": "diffusion fisher",
    "diffusion/training": "training stages",
    "models/families": "model unet",
    "models/unet": "unet",
    "quality/classifier": "classifier",
    "quality/features": "features damaged",
    "quality/judge": "features stages",
    "quality/params": "params",
    "quality/statistics": "statistics differences",
    "quant/apply": "policy own",
    "quant/choice": "policy",
    "quant/evidence": "policy rounding own",
    "quant/gather": "rounding damaged stages",
    "quant/gptq": "rounding",
    "quant/grid": "grid tensor",
    "quant/knapsack": "allocate policy",
    "quant/params": "params stages",
    "quant/policies/bits": "policy",
    "quant/policies/budget": "policy own",
    "quant/policies/every": "policy",
    "quant/policies/layers": "policy",
    "quant/policies/registry": "policy",
    "quant/prediction": "rounding own",
    "quant/rounding": "rounding tensor policy",
    "sampling/drawing": "stages",
    "sampling/params": "params stages",
    "sampling/samplers": "diffusion rounding",
    "sensitivity/compensation": "rounding own damaged",
    "sensitivity/curvature": "rounding own",
    "sensitivity/fisher": "fisher own",
    "sensitivity/gradients": "fisher own",
    "sensitivity/keep": "stages bench",
    "sensitivity/layers": "fisher rounding",
    "sensitivity/noised": "fisher rounding",
    "sensitivity/params": "params",
    "storage/formats": "tensor layers",
    "storage/layout": "tensor layers",
    "storage/model_file": "model damaged",
    "storage/modules": "layers model",
    "storage/pack": "pack",
}


def module(file: Path) -> str:
    return file.relative_to(SOURCE).with_suffix("").as_posix()


def mutated_files() -> list[Path]:
    files = [file for wing in WINGS for file in (SOURCE / wing).rglob("*.py") if file.name != "__init__.py"]
    if wrong := TESTS.keys() ^ set(map(module, files)):
        sys.exit(f"error: TESTS of tests/mutants/run.py and the modules of src/laqfi differ in {sorted(wrong)}")
    tests = {test for tests in TESTS.values() for test in tests.split()}
    if absent := sorted(test for test in tests if not (UNIT / f"test_{test}.py").is_file()):
        sys.exit(f"error: TESTS of tests/mutants/run.py names {absent}, which tests/unit has not")
    return files


def passes(test: str, mutant: Mutant | None, seconds: float | None = None) -> bool | None:
    """Whether the test file passes on a copy of the source with the mutant; None if it took more than `seconds`."""
    with TemporaryDirectory(prefix="mutant") as folder:
        copy = shutil.copytree(SOURCE, Path(folder) / "src/laqfi", ignore=shutil.ignore_patterns("__pycache__"))
        if mutant:
            (copy / mutant.file.relative_to(SOURCE)).write_text(mutant.code)
        path = os.pathsep.join(filter(None, [str(copy.parent), os.environ.get("PYTHONPATH")]))
        options = ["-x", "-q", "-p", "no:cacheprovider", f"--basetemp={folder}/tmp"]
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", *options, f"tests/unit/test_{test}.py"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL if mutant else sys.stderr,
            stderr=subprocess.DEVNULL if mutant else sys.stderr,
            start_new_session=True,
        )
        try:
            return process.wait(seconds) == 0
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # with the processes the test started
            process.wait()
            return None


def limit(test: str) -> float:
    """Seconds after which a mutant counts as caught: five times what the tests take without one, and ten more."""
    start = time.monotonic()
    if not passes(test, None):
        sys.exit(f"error: tests/unit/test_{test}.py fails without a mutant")
    return 10 + 5 * (time.monotonic() - start)


def attempt(mutant: Mutant, limits: dict[str, float]) -> dict:
    """The mutant as a record, with the test file that noticed it under `caught_by`, or None."""
    caught = None
    for test in TESTS[module(mutant.file)].split():
        if (passed := passes(test, mutant, limits[test])) is not True:
            caught = f"test_{test}.py" + (" (time limit)" if passed is None else "")
            break
    said = {"line": mutant.line, "operator": mutant.operator, "before": mutant.before, "after": mutant.after}
    return {"module": module(mutant.file), **said, "caught_by": caught}


def share(records: list[dict]) -> float:
    return sum(one["caught_by"] is not None for one in records) / len(records)


def table(records: list[dict]) -> str:
    """Caught and survived of each module, then every survivor as it was and as it is mutated."""
    names = sorted({one["module"] for one in records})
    rows = {name: [one for one in records if one["module"] == name] for name in names} | {"all": records}
    lines = [f"{'module':26}{'mutants':>8}{'caught':>8}{'survived':>9}{'share':>8}"]
    for name, some in rows.items():
        survived = sum(one["caught_by"] is None for one in some)
        lines.append(f"{name:26}{len(some):8}{len(some) - survived:8}{survived:9}{share(some):8.0%}")
    for one in sorted(records, key=lambda one: (one["module"], one["line"])):
        if one["caught_by"] is None:
            place = f"src/laqfi/{one['module']}.py:{one['line']}"
            lines += ["", f"{place}  {one['operator']}", f"- {one['before']}", f"+ {one['after']}"]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument(
        "--out", type=Path, default=ROOT / "build/mutants", help="folder of mutants.json and mutants.txt"
    )
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    mutants, places = draw(mutated_files(), asked.count, asked.seed)
    needed = sorted({test for one in mutants for test in TESTS[module(one.file)].split()})
    records = []
    with ThreadPoolExecutor(asked.workers) as pool:
        limits = dict(zip(needed, tqdm(pool.map(limit, needed), "without", len(needed), unit="file"), strict=True))
        trials = [pool.submit(attempt, one, limits) for one in mutants]
        for trial in tqdm(as_completed(trials), "mutants", len(trials), unit="mutant"):
            records.append(trial.result())
            told = {"seed": asked.seed, "places": places, "share": share(records), "mutants": records}
            (asked.out / "mutants.json").write_text(json.dumps(told, indent=1))
            (asked.out / "mutants.txt").write_text(table(records))
    print(table(records))
    if share(records) < NEEDED:
        sys.exit(f"error: {share(records):.1%} of the mutants are caught, at least {NEEDED:.0%} must be")


if __name__ == "__main__":
    main()
