"""Data plumbing: memory-mapped caches, the raise-or-skip report, seeded splits and resumable samplers.

Import from the files: `arrays` and `report` are read by worker processes, which must not pay for torch.
"""
