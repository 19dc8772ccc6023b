"""Fisher information of every layer, as a table."""

import math

from laqfi.records import FisherTable
from laqfi.report.tables import Row, Table

TITLES = {"empirical": "empirical", "gauss_newton": "Gauss–Newton"}


def layer_table(table: FisherTable) -> Table:
    """Fisher information of every layer at the last step of sampling, and how it changed since the first.

    Of both kinds: relative to the layer with the most at that timestep (eq. 2), each with its standard error; the
    timestep where it is largest; and the last step's divided by the first's, whose relative errors add in quadrature.
    """
    first, last = table.timesteps[-1], table.timesteps[0]
    rows: dict[str, Row] = {layer: {"layer": layer} for layer in table.empirical.layers}
    for kind, title in TITLES.items():
        layers = table.of_kind(kind).layers
        top = max(found.mean[0] for found in layers.values()) or 1.0
        for layer, found in layers.items():
            mean, error = found.mean, found.standard_error
            rows[layer][f"{title}, t = {last}"] = f"{mean[0] / top:.2g} ± {error[0] / top:.1g}"
            rows[layer][f"{title}, largest at"] = f"t = {table.timesteps[mean.index(max(mean))]}"
            rows[layer][f"{title}, t = {last} / t = {first}"] = quotient(mean[0], error[0], mean[-1], error[-1])
    rule = "± standard errors over images; formats are chosen by the Gauss–Newton kind."
    return Table("Fisher information by layer, relative to the largest", list(rows.values()), rule)


def quotient(a: float, a_error: float, b: float, b_error: float) -> str:
    if a == 0 or b == 0:
        return "none"
    relative = math.hypot(a_error / a, b_error / b)
    return f"{a / b:.2g} ± {a / b * relative:.1g}"
