"""Numbers and names as a reader finds them in a table or a sentence."""

import math

from laqfi.quality.fidelity import Median
from laqfi.records import Interval

IMPORTANCES = {"none": "squared error", "inverse": "inverse Fisher", "uniform": "same bits for all"}


def importance(name: str) -> str:
    """What a reader calls an idea of importance."""
    return IMPORTANCES.get(name, name)


def fid_cell(fid: Interval) -> str:
    return interval_cell(fid, 2)


def interval_cell(found: Interval, digits: int) -> str:
    mean, low, high = (round(value, digits) + 0.0 for value in (found.mean, found.low, found.high))  # + 0.0: no -0
    return f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def difference_cell(found: Interval, digits: int = 3) -> str:
    return f"{round(found.mean, digits) + 0.0:+.{digits}f} {ends_cell(found, digits)}"


def ends_cell(found: Interval, digits: int = 3) -> str:
    low, high = (round(value, digits) + 0.0 for value in (found.low, found.high))
    return f"[{low:+.{digits}f}, {high:+.{digits}f}]"


def psnr_cell(psnr: float) -> str:
    return "identical" if math.isinf(psnr) else f"{psnr:.1f} dB"


def median_cell(found: Median) -> str:
    """An end that is infinite is an image that equals FP32's."""
    if math.isinf(found.value):
        return "identical"
    return f"{found.value:.1f} dB [{found.low:.1f}, {'identical' if math.isinf(found.high) else f'{found.high:.1f}'}]"


def decibels(value: float) -> str:
    return f"{round(value, 1) + 0.0:+.1f}".replace("inf", "∞")


def share_cell(share: Interval) -> str:
    return f"{100 * share.mean:.1f} % [{100 * share.low:.1f}, {100 * share.high:.1f}]"
