"""workflow/schemas/params.schema.yaml says what laqfi.config says.

`python tests/workflow/test_schema.py --fix` writes it.
"""

import sys
from pathlib import Path

import yaml

from laqfi.config import Params

PATH = Path(__file__).parents[2] / "workflow/schemas/params.schema.yaml"
HEAD = "# Written by tests/workflow/test_schema.py --fix from src/laqfi/config.py.\n"


def expected() -> str:
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema"} | Params.model_json_schema()
    return HEAD + yaml.safe_dump(schema, sort_keys=True)


def test_the_schema_snakemake_checks_is_the_one_of_the_package():
    assert PATH.read_text() == expected(), "run python tests/workflow/test_schema.py --fix"


if __name__ == "__main__" and sys.argv[1:] == ["--fix"]:
    PATH.write_text(expected())
