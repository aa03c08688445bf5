"""What is measured on unseen images."""
