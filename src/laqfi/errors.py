"""The one exception a user is meant to read."""


class LaqfiError(Exception):
    """Bad input: the message names the key or file, what was found and what is allowed, in one line."""
