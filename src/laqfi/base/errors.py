"""The one exception a user is meant to read."""

import reprlib

from pydantic import ValidationError


class Short(reprlib.Repr):
    """For errors: a line, however much was found."""

    def repr_int(self, x: int, level: int) -> str:
        """Python refuses to write whole numbers of thousands of digits."""
        return super().repr_int(x, level) if abs(x) < 10**1000 else "a number of more than 1,000 digits"


SHORT = Short()
SHORT.maxstring = SHORT.maxother = 200


class LaqfiError(Exception):
    """Bad input: the message names the key or file, what was found and what is allowed, in one line."""


def first_line(error: ValidationError, within: str = "") -> str:
    """The first complaint of pydantic as `key: found ..., what is allowed`; `within` is where the keys begin."""
    first = error.errors(include_url=False)[0]
    key = " ".join(".".join([within, *map(str, first["loc"])]).strip(".").split())[:200] or "the file"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        return f"{key}: unknown key"
    if first["type"] in ("missing", "value_error"):
        return f"{key}: {message}"
    return f"{key}: found {SHORT.repr(first['input'])}. {message}"
