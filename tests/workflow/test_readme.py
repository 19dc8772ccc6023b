"""The README's results are those of reports/quick. `python tests/workflow/test_readme.py --fix` copies them over."""

import re
import sys
from pathlib import Path

import torch
from torch import nn

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


class OneConvolution(nn.Module):
    """The smallest user's model the README's example fits."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x, timestep):
        return self.conv(x)


def test_the_python_of_the_readme_runs():
    model = OneConvolution()
    names = {"model": model, "images": torch.rand(4, 1, 8, 8) * 2 - 1, "weight": model.conv.weight.detach()}
    exec("\n".join(re.findall(r"```python\n(.*?)```", README.read_text(), re.S)), names)
    assert names["parts"][".packed"].dtype == torch.uint8
    assert names["restored"].shape == names["weight"].shape


if __name__ == "__main__" and sys.argv[1:] == ["--fix"]:
    README.write_text(expected())
