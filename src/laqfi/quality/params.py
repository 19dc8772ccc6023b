"""What params.yaml may say of judging images."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from laqfi.base.block import Block, Count, LearningRate, Seed, Timesteps


def each_once(seeds: list[int]) -> list[int]:
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds is {seeds}, allowed is each once")
    return seeds


class Classifier(Block):
    """A network is trained for each of `seeds`: the first judges, a second shows how much that depends on it."""

    network: Literal["classifier"]
    epochs: Annotated[int, Field(ge=1, le=100_000)]
    batch_size: Count
    lr: LearningRate
    seeds: Annotated[list[Seed], Field(min_length=1, max_length=2), AfterValidator(each_once)]


class Inception(Block):
    network: Literal["inception"]
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class EfficientNet(Block):
    network: Literal["efficientnet_lite0"]


Features = Annotated[Classifier | Inception | EfficientNet, Field(discriminator="network")]


class Groups(Block):
    """Into how many groups the images of a seed are cut; confidence intervals come from leaving out one at a time."""

    groups: Annotated[int, Field(ge=2, le=100_000)]


class Evaluate(Groups):
    noise_images: Count
    noise_timesteps: Timesteps
    seed: Seed
