def pytest_addoption(parser):
    parser.addoption("--walks", type=int, default=24, help="how many random walks test_records.py goes")


def pytest_generate_tests(metafunc):
    if "walk" in metafunc.fixturenames:
        metafunc.parametrize("walk", range(metafunc.config.getoption("--walks", 24)))
