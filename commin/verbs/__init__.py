"""The verbs of `python -m commin`, one file each."""
