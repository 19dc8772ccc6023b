"""What numbers are called: the word for a size, for an FID, and for a difference in FID with its interval.

The words for sizes and FIDs are those of the seed report, with which this work began: Ewha-DoInJi (2024),
"Layer-Adaptive Quantization on Diffusion Model using Fisher Information", github.com/Ewha-DoInJi/growth-research.
"""

from laqfi.records import Interval

SIZE_BANDS = {0.10: "slight", 0.20: "meaningful", 0.30: "noticeable", 0.40: "large", 0.50: "beyond 50 %"}
# Edges for an FID, 23.0, 23.5 and 24.0, relative to the best one, 22.7, so that they hold in any feature space.
FID_BANDS = {1.013: "excellent", 1.035: "good", 1.057: "fair"}


def size_band(reduction: float) -> str:
    """The seed report's word for a share of bytes saved (0.25: a quarter)."""
    return next((word for edge, word in sorted(SIZE_BANDS.items(), reverse=True) if reduction >= edge), "none")


def fid_band(fid: float, base: float) -> str:
    """The seed report's word for an FID, relative to that of FP32."""
    return next((word for edge, word in FID_BANDS.items() if fid < edge * base), "degraded")


def verdict(difference: Interval, control: str = "FP32") -> str:
    """What the interval of an FID minus that of `control` allows to say.

    In a table of many comparisons the interval has to be the simultaneous one, else some of them are wrong by chance.
    """
    if difference.low == difference.high == 0:
        return f"identical to {control}"
    if difference.low <= 0 <= difference.high:
        return f"not distinguishable from {control}"
    return f"worse than {control}" if difference.low > 0 else f"better than {control}"


def short_verdict(difference: Interval) -> str:
    """The same in a word or two."""
    words = {"identical": "same", "not": "no difference", "worse": "worse", "better": "better"}
    return words[verdict(difference).split()[0]]
