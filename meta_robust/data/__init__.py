"""From class folders or Omniglot's files to episodes; `synthetic` writes a set with a planted shift."""
