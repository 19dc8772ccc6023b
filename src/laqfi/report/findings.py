"""What a run found, one sentence per question, made of the numbers by the rule that stands beside it."""

from dataclasses import dataclass

from laqfi.records import Allocation, ControlTable, FisherTable
from laqfi.report import differences, noise
from laqfi.report.cells import difference_cell, fid_cell, importance, median_cell
from laqfi.report.differences import AgainstFisher, AgainstUniform, JudgedVariant
from laqfi.report.equal_bytes import KINDS, EqualBytes

SMALL = 5  # percent of FP32's FID: an interval that reaches beyond says too little to call a difference invisible


@dataclass(frozen=True)
class Finding:
    """An answer, and how it follows from the numbers."""

    sentence: str
    rule: str


def findings(
    variants: dict[str, JudgedVariant],
    controls: ControlTable,
    uniform: dict[str, AgainstUniform],
    fisher: FisherTable,
    allocations: dict[str, Allocation],
) -> dict[str, Finding]:
    """By question: cost, again, fisher, floats, layers, limit, prediction; without what the run says nothing of.

    `fisher` is there once for each kind of equal bytes.
    """
    helps = {
        equal.named("fisher"): fisher_helps(differences.controls_against_fisher(controls, equal), equal)
        for equal in KINDS
    }
    found = {
        "cost": cost(variants),
        "again": drawn_again(variants),
        **helps,
        "floats": floats(uniform),
        "layers": layers(fisher),
        "limit": limit(allocations),
        "prediction": prediction(variants, allocations),
    }
    return {key: one for key, one in found.items() if one}


def cost(variants: dict[str, JudgedVariant]) -> Finding:
    base = variants["fp32"].measured.fid.mean
    smaller = {name: one for name, one in variants.items() if one.times_smaller > 1}
    free = {name: one for name, one in smaller.items() if unseen(one, base)}
    best = max(free, key=lambda name: free[name].times_smaller, default=None)
    least = free[best].times_smaller if best else 1.0
    costly = {name: one for name, one in smaller.items() if one.times_smaller > least and not unseen(one, base)}
    following = sorted(costly, key=lambda name: costly[name].times_smaller)
    parts = [
        f"the smallest model whose FID can neither be told from FP32's nor be {SMALL} % above it is"
        f" {described(best, free[best])}"
        if best
        else f"of no smaller model's FID is it certain that it is FP32's or less than {SMALL} % above it"
    ]
    parts += [f"the next smaller one is {described(name, costly[name])}" for name in following[:1]]
    parts += [f"the smallest of all is {described(name, costly[name])}" for name in following[1:][-1:]]
    rule = (
        "Cannot be told: the interval of FID − FP32 that holds for the whole table holds zero and ends below"
        f" {SMALL} % of FP32's FID."
    )
    return Finding(sentence_of(parts), rule)


def unseen(variant: JudgedVariant, base: float) -> bool:
    found = variant.images.simultaneous
    return found.low <= 0 <= found.high <= SMALL / 100 * base


def described(name: str, one: JudgedVariant) -> str:
    images, share = one.images, one.images.fidelity.tipped.mean
    return (
        f"`{name}`, {one.times_smaller:.1f} × smaller (FID − FP32 {difference_cell(images.simultaneous, 2)}, median"
        f" image {median_cell(images.fidelity.median)}, {100 * share:.1f} % other images)"
    )


def drawn_again(variants: dict[str, JudgedVariant]) -> Finding | None:
    """What the headline with the most images says."""
    headlines = variants["fp32"].headlines
    if not headlines:
        return None
    name = max(headlines, key=lambda one: headlines[one].quality.images)
    base = headlines[name].quality
    rows = {variant: one for variant, one in variants.items() if name in one.headlines and variant != "fp32"}
    parts = [f"with {base.images:,} images per seed (`{name}`) FP32 has an FID of {fid_cell(base.fid)}"]
    for variant, one in rows.items():
        found = one.headlines[name]
        parts.append(
            f"`{variant}`, {one.times_smaller:.1f} × smaller, is {found.verdict}"
            f" ({difference_cell(found.simultaneous, 2)}, median image {median_cell(found.fidelity.median)})"
        )
    return Finding(
        sentence_of(parts), "Of what is drawn again that of the most images, by intervals of its whole table."
    )


def fisher_helps(rows: dict[float, dict[str, AgainstFisher | None]], equal: EqualBytes) -> Finding | None:
    """At which sizes every control that fits is behind Fisher's choice, by the median image and by FID."""
    fitting = {size: {name: one for name, one in row.items() if one} for size, row in sorted(rows.items())}
    fitting = {size: row for size, row in fitting.items() if row}
    if not fitting:
        return None
    nearer = [size for size, row in fitting.items() if all(one.nearer == "Fisher" for one in row.values())]
    worse = [size for size, row in fitting.items() if all(one.verdict.startswith("worse") for one in row.values())]
    parts = [
        f"at equal bytes {equal.where} Fisher's choice is nearer to FP32's images than every control"
        f" {at(nearer, fitting)}"
    ]
    parts += [f"{size:g} × smaller, {exceptions(row)}" for size, row in fitting.items() if size not in nearer]
    parts += [
        f"by FID every control is worse {at(worse, fitting)}" if worse else "by FID no size has only worse controls"
    ]
    equal = {
        importance(name): [
            size for size, row in fitting.items() if name in row and not row[name].verdict.startswith("worse")
        ]
        for name in dict.fromkeys(name for row in fitting.values() for name in row)
    }
    parts += [f"{name} is not worse {at(sizes, fitting)}" for name, sizes in equal.items() if sizes]
    rule = (
        "Nearer: the interval of the median gain in PSNR leaves out zero. Worse: the interval of the difference in FID"
        " does. Both hold for the whole table at once."
    )
    return Finding(sentence_of(parts), rule)


def exceptions(row: dict[str, AgainstFisher]) -> str:
    words = {"control": "nearer than Fisher", "neither": "as near as Fisher"}
    groups = {word: [importance(n) for n, one in row.items() if one.nearer == key] for key, word in words.items()}
    return " and ".join(f"{listed(names)} {verb(names)} {word}" for word, names in groups.items() if names)


def at(sizes: list[float], of: dict[float, object]) -> str:
    if len(sizes) == len(of):
        return f"at every size tried ({times(of)})"
    return f"at {times(sizes)} smaller" if sizes else f"at none of {times(of)} smaller"


def times(sizes) -> str:
    return f"{listed([f'{size:g}' for size in sizes])} ×"


def listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def verb(words: list[str]) -> str:
    return "is" if len(words) == 1 else "are"


def sentence_of(parts: list[str]) -> str:
    text = "; ".join(parts)
    return text[0].upper() + text[1:] + "."


def floats(uniform: dict[str, AgainstUniform]) -> Finding | None:
    """The seed report's question: is it worth keeping some tensors in FP32?"""
    if not uniform:
        return None
    control = next(iter(uniform.values())).control
    differing = [name for name, one in uniform.items() if not one.verdict.startswith(("not", "identical"))]
    ends = [
        abs(end)
        for one in uniform.values()
        for end in (one.difference.simultaneous.low, one.difference.simultaneous.high)
    ]
    largest = max(one.size for one in uniform.values())
    which = (
        f"{listed([f'`{name}`' for name in differing])} of {len(uniform)}" if differing else f"none of {len(uniform)}"
    )
    text = (
        f"of the policies that keep some tensors in FP32 and the others in half precision, {which} differ in FID from"
        f" `{control}`, which keeps none; all intervals lie within ± {max(ends):.3f}; up to {largest:.1f} × its bytes"
    )
    return Finding(sentence_of([text]), "Differ: the interval that holds for the whole table leaves out zero.")


def layers(table: FisherTable) -> Finding:
    first, last = table.timesteps[-1], table.timesteps[0]
    means = {layer: found.mean for layer, found in table.gauss_newton.layers.items()}
    order = sorted(means, key=lambda layer: -means[layer][0])
    growing = [layer for layer, mean in means.items() if mean[0] == max(mean)]
    parts = [f"at the last step of sampling (t = {last}) layer {order[0]} has the most Fisher information"]
    if len(order) > 1 and means[order[1]][0] > 0:
        parts[0] += f", {quotient(means[order[0]][0], means[order[1]][0])} × that of the next, layer {order[1]}"
    grown = f"layer{'s' if len(growing) > 1 else ''} {listed(growing)}" if growing else "no layer"
    parts += [f"of {grown} it is largest there among all timesteps from t = {first} on"]
    return Finding(sentence_of(parts), "By the Gauss–Newton kind, means over images; standard errors are in the table.")


def quotient(a: float, b: float) -> str:
    """Two digits, or all before the point."""
    return f"{a / b:,.0f}" if a >= 10 * b else f"{a / b:.2g}"


def limit(allocations: dict[str, Allocation]) -> Finding | None:
    gaps = {name: one.bound for name, one in allocations.items() if one.bound}
    if not gaps:
        return None
    order = sorted(gaps, key=lambda name: gaps[name].bits - gaps[name].bound)
    parts = [
        f"`{name}` takes {one.bits:.1f} bits per weight, {one.bits - one.bound:.1f} more than the bound"
        for name, one in ((name, gaps[name]) for name in dict.fromkeys((order[0], order[-1])))
    ]
    rule = (
        "Nearest to the bound and farthest from it. The bound is reverse water-filling at the same predicted error, for"
        " the tensors stored as integers; bits count scales."
    )
    return Finding(sentence_of(parts), rule)


def prediction(variants: dict[str, JudgedVariant], allocations: dict[str, Allocation]) -> Finding | None:
    points = noise.changes({name: one.measured for name, one in variants.items()}, allocations)
    images = noise.image_changes(points, {name: one.images.fidelity for name, one in variants.items()})
    parts = [
        f"it ranks {what} with ρ = {found.rho:.2f} [{found.low:.2f}, {found.high:.2f}] ({len(of)} variants)"
        for what, of in (("the measured change of the noise", points), ("the error of the median image", images))
        if (found := noise.spearman(of))
    ]
    rule = "Spearman's ρ of the change that the Fisher information predicts; interval of Bonett and Wright (2000)."
    return Finding(sentence_of(parts), rule) if parts else None
