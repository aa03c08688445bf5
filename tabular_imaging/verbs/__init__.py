"""The verbs of `python -m tabular_imaging <verb>`, one file each; pipelines.py holds those that call the others."""
