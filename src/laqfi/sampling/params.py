"""What params.yaml may say of drawing images, in the parts that stages read."""

from typing import Annotated

from pydantic import Field, model_validator

from laqfi.base.block import Block, Count, Name, Seed, Timestep
from laqfi.records import Precision


class Sampler(Block):
    """What decides how much each timestep counts. `eta` is of samplers that take it, 0 for others.

    `sampler` may be "scheduler": the own one of a model that brings one.
    """

    sampler: Name
    steps: Timestep
    eta: Annotated[float, Field(ge=0, le=1)] = 0.0


class Trajectory(Sampler):
    """The way of a sampler from noise to an image; a scheduler clips as its config says, and takes no `clip`."""

    clip: bool | None = None


Images = Annotated[int, Field(ge=2, le=1_000_000)]


class Headline(Sampler):
    """What some variants draw again, with more images or another sampler."""

    images: Images
    precision: Precision = "float32"
    variants: list[Name]

    @model_validator(mode="after")
    def fp32_is_among_them(self):
        if "fp32" not in self.variants:
            raise ValueError(f"variants is {self.variants}, allowed is a list with fp32, which all is compared with")
        return self


class Seeds(Block):
    seeds: Annotated[list[Seed], Field(min_length=1, max_length=1000)]

    @model_validator(mode="after")
    def seeds_differ(self):
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must differ from each other, found {self.seeds}")
        return self


class Drawing(Trajectory, Seeds):
    """How images are drawn, not how many."""

    precision: Precision = "float32"
    batch_size: Count


class Draws(Block):
    """How many images are drawn per seed, and what is drawn again."""

    images: Images
    headline: dict[Name, Headline] = Field(default_factory=dict)

    @model_validator(mode="after")
    def headlines_have_names_of_their_own(self):
        if "images" in self.headline:
            raise ValueError("headline names 'images', allowed is any other name")
        return self

    def images_of(self, variant: str) -> dict[str, int]:
        """Images per seed of everything the variant draws: "images", and the headlines that name it."""
        again = {name: one.images for name, one in self.headline.items() if variant in one.variants}
        return {"images": self.images, **again}


class Drawn(Draws, Seeds):
    """How many images are drawn of which seeds."""


class Described(Sampler, Drawn):
    """What a reader is told of it."""

    precision: Precision = "float32"


class Sample(Drawing, Drawn):
    def headlines_of(self, variant: str) -> dict[str, "Sample"]:
        """The settings of every headline that names the variant."""
        drawn = {name: again for name, again in self.headline.items() if variant in again.variants}
        return {name: self.model_copy(update=again.model_dump(exclude={"variants"})) for name, again in drawn.items()}
