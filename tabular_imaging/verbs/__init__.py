"""The verbs of `python -m tabular_imaging <verb>`, a file each; pipelines.py has those that call the others."""
