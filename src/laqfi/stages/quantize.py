"""Stage: store the model as one variant's policy decides."""

from pathlib import Path

from laqfi import cli, io
from laqfi.config import Profile, Variant
from laqfi.errors import LaqfiError
from laqfi.quant.model import cast, is_quantizable
from laqfi.quant.policy import WeightTensor, bind
from laqfi.unet import layer_of


def quantize(profile: Profile, variant: Variant, *, model: Path, table: Path, out: Path, choices: Path) -> None:
    """Write the tensors in the formats chosen, and beside them which tensor got what and why."""
    tensors, metadata = io.read_tensors(model)
    scores = fisher_scores(io.read_json(table), profile.quantize.fisher, profile.quantize.timestep)
    names = [name for name, tensor in tensors.items() if is_quantizable(name, tensor)]
    if unlike := set(names) ^ set(scores):
        raise LaqfiError(f"{table} and {model} are not of one model: only one of them holds {min(unlike)}")
    top = max(scores[name] for name in names)
    weights = [WeightTensor(name, layer_of(name), scores[name] / top if top > 0 else 0.0) for name in names]
    chosen = bind(variant.policy, variant.model_extra)(weights)
    stored = {name: cast(name, t, chosen[name].dtype) if name in chosen else t for name, t in tensors.items()}
    io.write_tensors(out, stored, metadata)
    reasons = {
        w.name: {"dtype": chosen[w.name].dtype, "score": w.score, "threshold": chosen[w.name].threshold}
        for w in weights
    }
    io.write_json(choices, {"policy": variant.policy, "options": variant.model_extra, "tensors": reasons})


def fisher_scores(table: dict, kind: str, timestep: int) -> dict[str, float]:
    """Mean Fisher of every tensor at one timestep."""
    column = table["timesteps"].index(timestep)
    return {name: rows["mean"][column] for name, rows in table[kind]["tensors"].items()}


if __name__ == "__main__":
    cli.run(quantize)
