"""Data plumbing: the base of the data modules, memory-mapped caches, bad items, seeded splits, resumable samplers.

Import from the files: worker processes import the readers (`arrays`, `images`, `problems`, `tables`), and must not pay
for torch.
"""
