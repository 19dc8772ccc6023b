"""`python -m laqfi`: the program `laqfi`."""

from laqfi.shell.program import main

if __name__ == "__main__":
    main()
