"""A SYNTHETIC data set in DVM-car's layout.

The tables of adverts (`adverts`), the photographs (`scenes`), and the drawings of the vehicles in them (`vehicles`).
"""
