"""The block `dataset`."""

from pydantic import BaseModel, ConfigDict


class Dataset(BaseModel):
    """A data set with its options, which the function of that name in `laqfi.data.datasets` declares."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)
    name: str
