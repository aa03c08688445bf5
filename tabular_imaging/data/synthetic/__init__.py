"""A SYNTHETIC data set in DVM-car's layout.

`adverts` makes the tables, `scenes` the photographs, and `vehicles` the drawings of the vehicles in them.
"""
