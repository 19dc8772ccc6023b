"""The table of recipes: rounded inputs, learned rounding, recovery, corrected noise beside the same without them."""

from collections.abc import Mapping

from laqfi.records import Allocation, Recipe
from laqfi.report import noise
from laqfi.report.cells import difference_cell, ends_cell, median_cell
from laqfi.report.differences import JudgedVariant
from laqfi.report.tables import FAMILY, Row, Table, size_cells

RANGES = {
    "static": "one range",
    "per_step": "a range per step",
    "dynamic": "a range per sample",
    "tdq": "TDQ's ranges",
}
LEARN = {"norms": "norms and biases", "scales": "norms, biases and scales", "codes": "all that is stored"}
DATA = {"images": "on noised images", "samples": "on FP32's own samples"}
PUBLISHED = {"reconstruct": 20_000, "learn": 5_000}  # iterations of Q-Diffusion, per block


def recipe_table(variants: Mapping[str, JudgedVariant], allocations: Mapping[str, Allocation]) -> Table:
    """One row per variant in the order of params.yaml; no rows where no variant has a recipe."""
    some = any(one.recipe.done for one in allocations.values())
    rows = [row(name, one, allocations[name]) for name, one in variants.items()] if some else []
    rule = (
        "Inputs of layers are rounded, and computed with in float32: this says what few bits do to the images, and"
        " nothing of speed. Weights: bits per weight of the integer tensors in the file, scales included. Learned"
        f" rounding: AdaRound by block (published: {PUBLISHED['reconstruct']:,} iterations), learned steps of inputs"
        f" (published: {PUBLISHED['learn']:,}). Recovery: stored numbers learn FP32's noise, in no more bytes. {FAMILY}"
    )
    return Table("Rounded inputs, learned rounding, recovery, corrected noise", rows, rule)


def row(name: str, one: JudgedVariant, allocation: Allocation) -> Row:
    bits = allocation.bits_per_weight
    return {
        "variant": name,
        "weights": "" if bits is None else f"{bits.bits:.1f} bits",
        "inputs": inputs_cell(allocation.recipe),
        "learned rounding": learned_cell(allocation.recipe),
        "recovery": recovery_cell(allocation.recipe),
        "noise": "PTQD" if allocation.recipe.correct else "",
        **size_cells(one),
        "noise MSE to FP32": f"{noise.mean(one.measured.noise_mse.values()):.1e}",
        "median PSNR [95 % CI]": median_cell(one.images.fidelity.median),
        "FID − FP32 [95 % CI]": difference_cell(one.images.difference),
        "all": ends_cell(one.images.simultaneous),
        "verdict": one.images.verdict,
    }


def inputs_cell(recipe: Recipe) -> str:
    found = recipe.activations
    if not found:
        return "float32"
    learned = f", {found.learn} iterations" if found.learn else ""
    return f"{found.bits} bits, {RANGES[found.ranges]}{learned}"


def learned_cell(recipe: Recipe) -> str:
    found = recipe.reconstruct
    return f"{found.iterations} iterations" if found else ""


def recovery_cell(recipe: Recipe) -> str:
    found = recipe.recover
    return f"{found.iterations} iterations {DATA[found.data]}, {LEARN[found.learn]}" if found else ""
