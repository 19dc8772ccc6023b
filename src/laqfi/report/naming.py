"""What a variant's name stands for: its policy, and the options that make it this variant."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from laqfi.quant.policies import every  # noqa: F401  puts all of them into the registry
from laqfi.quant.policies.registry import POLICIES
from laqfi.records import Allocation


@dataclass(frozen=True)
class Names:
    """`brief` and `whole` by variant: with what tells it from others of its policy, and with all that is not a default.

    `policies` says by name what each policy does, and which options all of its variants here share.
    """

    brief: Mapping[str, str]
    whole: Mapping[str, str]
    policies: Mapping[str, str]


def names(allocations: Mapping[str, Allocation]) -> Names:
    """From the policies' documentation and the variants' own options."""
    own = {name: not_default(one) for name, one in allocations.items()}
    shared = {policy: dict(shared_options(policy, allocations, own)) for policy in policies_of(allocations)}
    brief = {
        name: f"{one.policy}{listed({key: v for key, v in own[name].items() if key not in shared[one.policy]})}"
        for name, one in allocations.items()
    }
    whole = {name: f"{sentence(one.policy)}{listed(own[name])}" for name, one in allocations.items()}
    return Names(brief, whole, {policy: f"{sentence(policy)}{listed(options)}" for policy, options in shared.items()})


def policies_of(allocations: Mapping[str, Allocation]) -> list[str]:
    return list(dict.fromkeys(one.policy for one in allocations.values()))


def not_default(allocation: Allocation) -> dict[str, object]:
    """All options of a policy that is not there any more."""
    known = allocation.policy in POLICIES
    fields = POLICIES.options(allocation.policy).model_fields if known else {}
    own = {key: v for key, v in allocation.options.items() if key not in fields or fields[key].default != v}
    coding = {} if allocation.coding is None else {"coding": allocation.coding}
    return own | coding | allocation.recipe.done


def shared_options(
    policy: str, allocations: Mapping[str, Allocation], own: Mapping[str, Mapping[str, object]]
) -> Iterator[tuple[str, object]]:
    """Those that all variants of the policy have alike, if there are several variants."""
    first, *others = [own[name] for name, one in allocations.items() if one.policy == policy]
    if others:
        yield from ((key, v) for key, v in first.items() if all(key in other and other[key] == v for other in others))


def sentence(policy: str) -> str:
    """The first one of its documentation; its name if it has none."""
    said = (POLICIES[policy].__doc__ or "").strip() if policy in POLICIES else ""
    return said.splitlines()[0].partition(". ")[0].rstrip(".") if said else policy


def listed(options: Mapping[str, object]) -> str:
    said = [f"{key} {text}" for key, value in options.items() if (text := words(value))]
    return f"; {', '.join(said)}" if said else ""


def words(value: object) -> str:
    """A value of params.yaml for a reader; what is not given is nothing."""
    if value is None:
        return ""
    if isinstance(value, Mapping):
        return " ".join(f"{key} {text}" for key, one in value.items() if (text := words(one)))
    if isinstance(value, list):
        nested = any(isinstance(one, Mapping | list) for one in value)
        return (" | " if nested else " ").join(words(one) for one in value)
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
