"""A SYNTHETIC survey of galaxies with planted classes; `survey.py` writes it."""

from galaxy_clusters.data.synthetic.survey import write_synthetic

__all__ = ["write_synthetic"]
