"""The table encoder, and what its embedding and the image encoder's depend on, in plain torch."""
