"""What the tables compare the votes with, beside the methods of `shared.methods`."""
