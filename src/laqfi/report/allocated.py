"""Tables of what the choice of formats promised: bits beside their bound, predicted changes beside measured ones."""

from collections.abc import Mapping

from laqfi.records import Allocation
from laqfi.report.tables import Table

Points = Mapping[str, tuple[float, float]]


def bound_table(allocations: Mapping[str, Allocation]) -> Table:
    """One row per variant with integer tensors, in the order of params.yaml."""
    rows = [
        {
            "variant": name,
            "bits per weight": f"{found.bits:.2f}",
            "bound": f"{found.bound:.2f}",
            "above the bound": f"{found.bits - found.bound:.2f}",
        }
        for name, one in allocations.items()
        if (found := one.bound)
    ]
    rule = (
        "Of the tensors stored as integers, in the file: coded where it is, scales included. The bound: reverse"
        " water-filling (Cover and Thomas, theorem 10.3.3) at the same predicted error, the weights of a channel taken"
        " for independent and Gaussian."
    )
    return Table("Bits per weight, and the fewest at the same predicted error", rows, rule)


def prediction_table(noises: Points, images: Points) -> Table:
    """One row per variant that changes the noise: the predicted change, the measured one, and what images show."""
    rows = [
        {
            "variant": name,
            "predicted change of the noise": f"{predicted:.2e}",
            "measured": f"{measured:.2e}",
            "measured / predicted": f"{measured / predicted:.2f}" if predicted else "none predicted",
            "error of the median image": f"{images[name][1]:.2e}" if name in images else "none",
        }
        for name, (predicted, measured) in noises.items()
    ]
    rule = (
        "Changes are mean squares per pixel, the noise having variance 1; the error of the median image is relative to"
        " the square of the largest pixel value. The prediction leaves out that the errors of GPTQ make up for each"
        " other."
    )
    return Table("The change that the Fisher information predicts, and the one measured", rows, rule)
