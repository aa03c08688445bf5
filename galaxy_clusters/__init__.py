"""Rare classes of galaxies in the representations of a model (Walmsley and Scaife 2023)."""
