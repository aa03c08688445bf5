"""The paper's evaluation: its protocols and rows (models.py), its tables (tables.py), and pictures (figures.py)."""
