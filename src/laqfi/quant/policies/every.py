"""All policies: who imports this module finds them in the registry. A new file of policies is named here."""

from laqfi.quant.policies import bits, budget, layers, rate  # noqa: F401
from laqfi.quant.policies.registry import bind, check

__all__ = ["bind", "check"]
