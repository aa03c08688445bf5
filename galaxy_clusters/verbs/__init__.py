"""The verbs of `python -m galaxy_clusters`, one file each."""
