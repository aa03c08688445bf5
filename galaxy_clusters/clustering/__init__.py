"""From a representation to clusters: neighbour graph, UMAP layout, spanning tree, leaves (paper, section 3)."""
