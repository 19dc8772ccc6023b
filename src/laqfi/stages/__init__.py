"""The pipeline's stages, each a module that runs by itself: `python -m laqfi.stages.train --help`."""

from laqfi.base import sources  # noqa: F401  # first: it notes what the code is that runs
from laqfi.base.portable import settle_this_process

settle_this_process()
