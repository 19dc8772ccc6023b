"""A block under `variants`."""

from pydantic import BaseModel, ConfigDict


class Variant(BaseModel):
    """A quantization policy with its options, which the policy itself declares."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)
    policy: str
