"""The paper's evaluation: of one encoder (classifiers.py) and of a variant (models.py), its tables and its figures."""
