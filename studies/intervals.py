"""Do the intervals cover? `make coverage`, or `python studies/intervals.py --out DIR --docs FILE`.

Replicates the intervals of the reports on populations whose true values are known, and counts how often they hold them.
"""

import laqfi.stages  # noqa: F401  # isort: skip  # sets what it sets before NumPy is loaded

import argparse
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

import families
import medians
import page
import single
from laqfi.base import files
from laqfi.quality import simultaneous
from laqfi.stages.command import limit_threads
from populations import Population, digits, gaussians
from single import Cell

GROUPS = 20  # as in all profiles of params.yaml
IMAGES = (100, 300, 1000, 3000)
PROFILE = 300  # images per seed, about as the profiles draw
OTHER_GROUPS = (10, 50)


def cells(populations: list[Population], runs: int) -> Iterator[Cell]:
    """FID by number of images, and by number of groups where the population has changes; KID as a profile has it."""
    for population in populations:
        for images in IMAGES:
            yield Cell("FID", population, images, GROUPS, runs)
        for groups in OTHER_GROUPS if population.members[1:] else ():
            yield Cell("FID", population, PROFILE, groups, runs)
        yield Cell("KID", population, PROFILE, GROUPS, runs)


def study(runs: int, tables: int) -> dict:
    """All that is counted: of `runs` runs, of a third as many samples of three seeds, and of `tables` tables."""
    work = list(cells(gaussians() + digits(), runs))
    rows = [asdict(row) for cell in tqdm(work, "coverage") for row in single.rows(cell)]
    settings = tqdm(families.settings(PROFILE, GROUPS), "tables")
    verdicts = [asdict(found) for setting in settings for found in families.study(setting, tables)]
    return {
        "runs": runs,
        "tables": tables,
        "draws": simultaneous.DRAWS,
        "rows": rows,
        "verdicts": verdicts,
        "medians": [asdict(row) for row in medians.study(runs)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the numbers, the tables and the figure")
    parser.add_argument("--docs", type=Path, required=True, help="text whose block between markers holds the tables")
    parser.add_argument("--runs", type=int, default=600, help="runs of every cell")
    parser.add_argument("--tables", type=int, default=200, help="tables of every family")
    arguments = parser.parse_args()
    limit_threads(1)
    results = study(arguments.runs, arguments.tables)
    files.write_json(arguments.out / "coverage.json", results)
    page.write(results, arguments.out, arguments.docs)


if __name__ == "__main__":
    main()
