"""Functions that params.yaml names: policies, rounding methods, samplers, data sets."""

import inspect
from collections.abc import Callable, Mapping
from typing import get_type_hints

from pydantic import BaseModel, create_model

from laqfi.base.block import Block
from laqfi.base.errors import LaqfiError


class Registry(dict[str, Callable]):
    """Functions by name. Used as a decorator it adds one; its keyword-only parameters are its options.

    What the options may be is what their annotations say, read by pydantic.
    """

    def __call__(self, function: Callable) -> Callable:
        if function.__name__ in self:
            raise LaqfiError(
                f"{function.__module__}: {function.__name__!r} is registered already, allowed is a new name"
            )
        self[function.__name__] = function
        return function

    def find(self, name: str) -> Callable:
        """Raises LaqfiError for a name that is not there."""
        if name not in self:
            raise LaqfiError(f"found {name!r}, allowed is one of {sorted(self)}")
        return self[name]

    def known(self, name: str) -> str:
        """The name itself, for pydantic: raises ValueError where `find` raises LaqfiError."""
        try:
            self.find(name)
        except LaqfiError as error:
            raise ValueError(str(error)) from error
        return name

    def options(self, name: str) -> type[BaseModel]:
        """The block that holds the options of the function `name`. Raises LaqfiError if there is no such function."""
        function = self.find(name)
        hints = get_type_hints(function, include_extras=True)
        fields = {
            parameter.name: (hints[parameter.name], ... if parameter.default is parameter.empty else parameter.default)
            for parameter in inspect.signature(function).parameters.values()
            if parameter.kind is parameter.KEYWORD_ONLY
        }
        return create_model(name, __base__=Block, **fields)

    def check(self, name: str, options: Mapping, context: Mapping | None = None) -> BaseModel:
        """The options of the function `name`, checked, defaults filled in; `context` is for their validators.

        Raises LaqfiError for a name that is not there, pydantic.ValidationError for options that do not fit.
        """
        return self.options(name).model_validate(dict(options), context=context)
