"""Speed and memory against the plain way, as ratios measured in one run; rows go to results/."""
