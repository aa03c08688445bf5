"""The verbs of `python -m ecg_text <verb>`, a file each; pipelines.py has those that call the others."""
