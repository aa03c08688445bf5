"""The verbs of `python -m ecg_text <verb>`, one file each; pipelines.py holds those that call the others."""
