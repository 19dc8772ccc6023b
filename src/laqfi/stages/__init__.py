"""The pipeline's stages, each a module that runs by itself: `python -m laqfi.stages.train --help`."""

from laqfi.portable import settle_this_process

settle_this_process()
