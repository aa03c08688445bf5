"""The paper's evaluation: classifiers.py of one encoder, models.py of a variant, tables.py and figures.py."""
