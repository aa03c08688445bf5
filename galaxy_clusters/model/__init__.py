"""Networks of this paper, and numbers that need no training."""
