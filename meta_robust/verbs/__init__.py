"""The verbs of `python -m meta_robust`."""
