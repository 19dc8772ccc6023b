"""The README's results are those of reports/quick. `python tests/workflow/test_readme.py --fix` copies them over."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
BLOCK = re.compile(r"(<!-- summary -->\n).*?(<!-- /summary -->)", re.S)


def expected() -> str:
    summary = (ROOT / "reports/quick/summary.md").read_text()
    return BLOCK.sub(lambda match: f"{match[1]}{summary}{match[2]}", README.read_text())


def test_the_results_table_is_the_one_of_the_report():
    assert README.read_text() == expected(), "run python tests/workflow/test_readme.py --fix"


def test_every_file_the_readme_links_to_exists():
    links = re.findall(r"\]\((?!http)(.+?)\)", README.read_text())
    assert links
    assert all((ROOT / link).exists() for link in links)


if __name__ == "__main__" and sys.argv[1:] == ["--fix"]:
    README.write_text(expected())
