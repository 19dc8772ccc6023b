"""The user's own network as it is recorded: the configs in its folder, what it is given, and hashes of all."""

from pydantic import TypeAdapter, ValidationError

from laqfi.base.errors import LaqfiError, first_line
from laqfi.models.conditioning import Embeddings
from laqfi.models.pretrained import NetworkFolder
from laqfi.params.folders import Recorded, entry

FOLDER = TypeAdapter(NetworkFolder)


def settled(model: object, recorded: Recorded | None) -> object:
    """A profile's block `model`; of a folder, with its configs and its hash.

    What has another form is left to those who check it. Raises LaqfiError for a folder that is not recorded, and for a
    scheduler that is said twice or not at all.
    """
    path = model.get("path") if isinstance(model, dict) else None
    if not isinstance(path, str) or model.get("family") != "diffusers":
        return model
    if taken := sorted({"parameters", "pipeline", "unet", "sha256"} & model.keys()):
        raise LaqfiError(f"model.{taken[0]}: found one, allowed is none beside a path: the folder has its own")
    try:
        found = FOLDER.validate_python(dict(entry(recorded, path, "model.path")))
    except ValidationError as error:
        raise LaqfiError(f"workflow/folders.yaml: {first_line(error, path)}; `make folders` writes it") from error
    if (found.scheduler is None) == ("scheduler" not in model):
        word = "one, as the folder has none" if found.scheduler is None else "none, as the folder has its own"
        raise LaqfiError(f"model.scheduler: allowed is {word}: {path}")
    brought = {} if found.scheduler is None else {"scheduler": found.scheduler}
    if (file := model.get("embeddings")) is not None:
        brought["embeddings"] = embeddings_of(file, recorded)
    return model | brought | found.model_dump(exclude={"scheduler"})


def embeddings_of(path: object, recorded: Recorded | None) -> dict:
    """What is recorded of the file. Raises LaqfiError for another thing than a path, and one that is not recorded."""
    if not isinstance(path, str):
        raise LaqfiError("model.embeddings: found no path, allowed is that of a safetensors file")
    try:
        return Embeddings.model_validate(dict(entry(recorded, path, "model.embeddings"))).model_dump()
    except ValidationError as error:
        raise LaqfiError(f"workflow/folders.yaml: {first_line(error, path)}; `make folders` writes it") from error
