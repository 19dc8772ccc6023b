"""`make test` shares the tests out by module: what a module makes for its tests is made once."""

import os

import pytest


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="one process runs all tests")
def test_the_tests_of_a_module_run_in_one_worker(request):
    assert request.config.getvalue("loadgroup"), "--dist loadgroup"
    assert request.node.nodeid.endswith(f"@{__name__}")
