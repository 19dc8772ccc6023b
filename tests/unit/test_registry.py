"""Functions that params.yaml names."""

from typing import Annotated

import pytest
from pydantic import Field, ValidationError

from laqfi.base.errors import LaqfiError
from laqfi.base.registry import Registry


@pytest.fixture
def shapes() -> Registry:
    registry = Registry()

    @registry
    def circle(size: int, *, radius: Annotated[float, Field(gt=0)], filled: bool = False):
        return size, radius, filled

    return registry


def test_a_function_is_found_by_its_name_and_stays_as_it_is(shapes):
    assert shapes.find("circle")(3, radius=1.0) == (3, 1.0, False)
    assert shapes.known("circle") == "circle"


def test_an_unknown_name_is_refused_with_those_there_are(shapes):
    with pytest.raises(LaqfiError, match=r"^found 'square', allowed is one of \['circle'\]$"):
        shapes.find("square")
    with pytest.raises(ValueError, match="found 'square'"):
        shapes.known("square")


def test_keyword_only_parameters_are_the_options_with_their_defaults(shapes):
    assert dict(shapes.check("circle", {"radius": 2.0})) == {"radius": 2.0, "filled": False}
    for options in ({}, {"radius": -1.0}, {"radius": 1.0, "size": 3}, {"radius": 1.0, "filled": 1}):
        with pytest.raises(ValidationError):
            shapes.check("circle", options)


def test_a_second_function_of_the_same_name_is_refused(shapes):
    def circle():
        pass

    with pytest.raises(LaqfiError, match="'circle' is"):
        shapes(circle)
    assert shapes.find("circle")(3, radius=1.0) == (3, 1.0, False)
