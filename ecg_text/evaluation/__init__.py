"""The paper's evaluation: protocols and rows (models.py), its tables (tables.py), and pictures (figures.py)."""
