"""One colour and one mark for each thing that figures show, the same in all of them.

Variants are coloured by family: what their policies have in common. Colours: Okabe and Ito (2008), told apart by
colour-blind readers; layers, which have an order, take the steps of a scale.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from matplotlib import colormaps
from matplotlib.colors import to_hex

from laqfi.records import Allocation

FAMILIES = {
    "fp32": "FP32",
    **dict.fromkeys(("uniform", "threshold", "group", "ratio", "mean_std"), "float formats"),
    "bits": "one format for all",
    "budget": "budget",
}
COLOURS = {"FP32": "#000000", "float formats": "#0072B2", "one format for all": "#D55E00", "budget": "#009E73"}
OTHER_COLOURS = ("#CC79A7", "#E69F00", "#56B4E9", "#8C6D31")  # policies that are none of the above, in order
MARKS = "osD^vP*X<>phd"
FILLS = ("full", "none", "left", "right")
IMPORTANCES = {  # Fisher's choice is that of the budgets, the same bits for all that of one format for all
    "fisher": ("#009E73", "o"),
    "none": ("#56B4E9", "s"),
    "magnitude": ("#E69F00", "D"),
    "inverse": ("#CC79A7", "v"),
    "random": ("#777777", "X"),
    "uniform": ("#D55E00", "^"),
}
OTHER_IMPORTANCE = ("#8C6D31", "P")


@dataclass(frozen=True)
class Look:
    """How points are drawn; `family` names what shares the colour."""

    family: str
    colour: str
    mark: str
    fill: str = "full"

    @property
    def style(self) -> dict[str, str]:
        """As matplotlib's lines take it."""
        return {"color": self.colour, "marker": self.mark, "fillstyle": self.fill}


def of_variants(allocations: Mapping[str, Allocation]) -> dict[str, Look]:
    """By variant; those of one family differ in mark or fill, up to 52 of them."""
    colours, members, found = dict(COLOURS), {}, {}
    for name, one in allocations.items():
        family = FAMILIES.get(one.policy, one.policy)
        if family not in colours:
            colours[family] = OTHER_COLOURS[(len(colours) - len(COLOURS)) % len(OTHER_COLOURS)]
        place = members[family] = members.get(family, -1) + 1
        fill = FILLS[place // len(MARKS) % len(FILLS)]
        found[name] = Look(family, colours[family], MARKS[place % len(MARKS)], fill)
    return found


def of_importance(name: str) -> Look:
    """A control's marks are open: it is no variant."""
    colour, mark = IMPORTANCES.get(name, OTHER_IMPORTANCE)
    return Look("control", colour, mark, "full" if name == "fisher" else "none")


def of_layers(layers: Iterable[str]) -> dict[str, str]:
    """A colour for each, from the first to the last."""
    names = list(layers)
    steps = [0.92 * place / max(1, len(names) - 1) for place in range(len(names))]  # its end is too light on white
    return {name: to_hex(colormaps["viridis"](step)) for name, step in zip(names, steps, strict=True)}
