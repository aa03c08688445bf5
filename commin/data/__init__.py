"""Images to send: any folder or table of them, and a SYNTHETIC set.

Import from the files: worker processes import `pictures`, and must not pay for torch.
"""
