"""Field-neutral parts of Quintet: losses, backbones, metrics, data plumbing, probe, CLI, comparison.

Knows no paper and no data set, and imports no sibling package.
"""
