"""What everything stands on: files, errors, random numbers, versions. Imports nothing else of laqfi."""
