"""What params.yaml may say: one frozen class per block, checked as a whole before any work."""

import math
import reprlib
from importlib import import_module
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from laqfi.errors import LaqfiError

SHORT = reprlib.Repr()  # for errors: a line, however much was found
SHORT.maxstring = SHORT.maxother = 200

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


class Block(BaseModel):
    """A part of params.yaml: unknown keys and wrong types are errors, never guesses."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Dataset(Block):
    name: Literal["digits", "mnist", "fashion_mnist", "kmnist"]


class Classifier(Block):
    network: Literal["classifier"]
    epochs: Count
    batch_size: Count
    lr: Positive
    seed: Seed


class Inception(Block):
    network: Literal["inception"]
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


Features = Annotated[Classifier | Inception, Field(discriminator="network")]


class Diffusion(Block):
    timesteps: Annotated[int, Field(ge=2, le=100_000)]
    beta_start: Annotated[float, Field(gt=0, lt=1)]
    beta_end: Annotated[float, Field(gt=0, lt=1)]

    @model_validator(mode="after")
    def some_signal_remains(self):
        last = self.timesteps - 1
        betas = (self.beta_start + (self.beta_end - self.beta_start) * i / last for i in range(self.timesteps))
        remaining = sum(math.log10(1 - beta) for beta in betas)
        if remaining < -12:
            raise ValueError(
                f"these betas leave 1e{remaining:.0f} of the image's power at the last step, allowed is 1e-12"
            )
        return self


class Unet(Block):
    base_channels: Annotated[int, Field(ge=4, le=4096, multiple_of=4)]
    attention: list[Annotated[int, Field(ge=1, le=6)]]
    heads: Count
    dropout: Fraction

    @model_validator(mode="after")
    def heads_divide_channels(self):
        if self.base_channels % self.heads:
            raise ValueError(f"heads is {self.heads}, allowed is a divisor of base_channels = {self.base_channels}")
        return self


class Train(Block):
    steps: Count
    batch_size: Count
    lr: Positive
    warmup: Annotated[int, Field(ge=0)]
    ema: Fraction
    grad_clip: Positive
    seed: Seed


class Fisher(Block):
    timesteps: Annotated[list[Count], Field(min_length=1)]
    bins: Annotated[list[Count], Field(min_length=1)]
    images: Annotated[int, Field(ge=2)]
    chunk: Count
    seed: Seed

    @model_validator(mode="after")
    def bins_cover_timesteps(self):
        for key, values in (("timesteps", self.timesteps), ("bins", self.bins)):
            if values != sorted(set(values)):
                raise ValueError(f"{key} must increase")
        if self.timesteps[-1] > self.bins[-1]:
            raise ValueError(f"the last bin ends at {self.bins[-1]}, before timestep {self.timesteps[-1]}")
        for low, high in zip([0, *self.bins], self.bins, strict=False):
            if not any(low < t <= high for t in self.timesteps):
                raise ValueError(f"no timestep in the bin {low} < t <= {high}")
        return self


class Curvature(Block):
    timesteps: Annotated[list[Count], Field(min_length=1)]
    images: Count
    chunk: Count
    seed: Seed


class Quantize(Block):
    fisher: Literal["empirical", "gauss_newton"]
    timestep: Count


class Draw(Block):
    """How images are drawn, and how many per seed. `precision` is that of products on a GPU."""

    sampler: Literal["ddpm", "ddim"]
    steps: Count
    eta: Annotated[float, Field(ge=0, le=1)] = 0.0
    images: Annotated[int, Field(ge=2)]
    precision: Literal["float32", "tf32"] = "float32"

    @model_validator(mode="after")
    def eta_is_of_ddim(self):
        if self.sampler == "ddpm" and self.eta != 0:
            raise ValueError("eta belongs to the sampler ddim; ddpm is always ancestral")
        return self


class Headline(Draw):
    """What some variants draw again, with more images or another sampler."""

    variants: list[Name]

    @model_validator(mode="after")
    def fp32_is_among_them(self):
        if "fp32" not in self.variants:
            raise ValueError(f"variants is {self.variants}, allowed is a list with fp32, which all is compared with")
        return self


class Sample(Draw):
    clip: bool
    seeds: Annotated[list[Seed], Field(min_length=1)]
    batch_size: Count
    headline: dict[Name, Headline] = {}

    def headlines_of(self, variant: str) -> dict[str, "Sample"]:
        """The settings of every headline that names the variant."""
        drawn = {name: again for name, again in self.headline.items() if variant in again.variants}
        return {name: self.model_copy(update=again.model_dump(exclude={"variants"})) for name, again in drawn.items()}

    @model_validator(mode="after")
    def names_differ(self):
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must differ from each other, found {self.seeds}")
        if "images" in self.headline:
            raise ValueError("headline names 'images', allowed is any other name")
        return self


class Evaluate(Block):
    groups: Annotated[int, Field(ge=2)]
    noise_images: Count
    noise_timesteps: Annotated[list[Count], Field(min_length=1)]
    seed: Seed


class Budget(Block):
    """A size limit: how many times smaller than float32; `rest` is for biases and norms."""

    ratio: Annotated[float, Field(gt=1)]
    rest: Literal["float16", "float8_e4m3fn"] = "float16"


class Controls(Block):
    budgets: Annotated[list[Budget], Field(min_length=1)]
    images: Annotated[int, Field(ge=2)]


class Profile(Block):
    """One complete run: what it is made of, from the data to the measures."""

    threads: Count
    dataset: Dataset
    features: Features
    diffusion: Diffusion
    unet: Unet
    train: Train
    fisher: Fisher
    curvature: Curvature
    quantize: Quantize
    sample: Sample
    evaluate: Evaluate
    controls: Controls

    @model_validator(mode="after")
    def blocks_agree(self):
        last = self.diffusion.timesteps
        limits = {
            "fisher.timesteps": max(self.fisher.timesteps),
            "curvature.timesteps": max(self.curvature.timesteps),
            "evaluate.noise_timesteps": max(self.evaluate.noise_timesteps),
            "sample.steps": self.sample.steps,
            **{f"sample.headline.{name}.steps": again.steps for name, again in self.sample.headline.items()},
        }
        for key, value in limits.items():
            if value > last:
                raise ValueError(f"{key} holds {value}, allowed is 1 to diffusion.timesteps = {last}")
        if self.fisher.bins[-1] < last:
            raise ValueError(f"fisher.bins ends at {self.fisher.bins[-1]}, allowed is diffusion.timesteps = {last}")
        if self.quantize.timestep not in self.fisher.timesteps:
            raise ValueError(
                f"quantize.timestep is {self.quantize.timestep}, allowed is one of fisher.timesteps"
                f" {self.fisher.timesteps}"
            )
        if min(drawn.images for drawn in (self.sample, *self.sample.headline.values())) < 2 * self.evaluate.groups:
            raise ValueError(f"sample.images must be at least 2 x evaluate.groups = {2 * self.evaluate.groups}")
        if not 2 * self.evaluate.groups <= self.controls.images <= self.sample.images:
            raise ValueError(
                f"controls.images is {self.controls.images}, allowed is 2 x evaluate.groups ="
                f" {2 * self.evaluate.groups} to sample.images = {self.sample.images}"
            )
        return self


class Variant(BaseModel):
    """A quantization policy with its options, which the policy itself declares."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)
    policy: str


class Params(Block):
    active: Annotated[list[Name], Field(min_length=1)]
    variants: dict[Name, Variant]
    profiles: dict[Name, Profile]

    @model_validator(mode="after")
    def names_exist(self):
        for name in self.active:
            if name not in self.profiles:
                raise ValueError(f"active names {name!r}, allowed is one of {sorted(self.profiles)}")
        if "fp32" not in self.variants or self.variants["fp32"].policy != "fp32":
            raise ValueError("variants must hold fp32 with policy fp32: everything is compared with it")
        for profile in self.profiles.values():
            for name in {name for again in profile.sample.headline.values() for name in again.variants}:
                if name not in self.variants:
                    raise ValueError(f"sample.headline names {name!r}, allowed is one of {sorted(self.variants)}")
        return self


class DistinctKeys(yaml.SafeLoader):
    """Safe YAML in which no block has one key twice: the first would be lost without a word."""

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        if len(set(keys)) < len(keys):
            raise yaml.composer.ComposerError(None, None, f"a key is there twice among {keys}", node.start_mark)
        return node


def load(path: Path) -> Params:
    """Read and check all of params.yaml. Raises LaqfiError with one line for the first thing wrong."""
    try:
        raw = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=DistinctKeys)
    except OSError as error:
        raise LaqfiError(f"{path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, ValueError, RecursionError, AttributeError) as error:
        raise LaqfiError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from error
    try:
        params = Params.model_validate(raw)
    except ValidationError as error:
        raise LaqfiError(f"{path}: {first_line(error)}") from error
    # Looked up at run time, not imported: a policy decides whether a run may start, but its code
    # must not be a dependency of every stage that reads params.yaml.
    policies = import_module("laqfi.quant.policy")
    for name, variant in params.variants.items():
        try:
            policies.bind(variant.policy, variant.model_extra)
        except ValidationError as error:
            raise LaqfiError(f"{path}: {first_line(error, prefix=f'variants.{name}')}") from error
        except LaqfiError as error:
            raise LaqfiError(f"{path}: variants.{name}.policy: {error}") from error
    return params


def first_line(error: ValidationError, prefix: str = "") -> str:
    """The first complaint of pydantic as `key: found ..., what is allowed`."""
    first = error.errors(include_url=False)[0]
    key = " ".join(".".join([prefix, *map(str, first["loc"])]).strip(".").split()) or "the file"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        return f"{key}: unknown key"
    if first["type"] in ("missing", "value_error"):
        return f"{key}: {message}"
    return f"{key}: found {SHORT.repr(first['input'])}. {message}"
