"""Which model becomes the champion: the comparison of two reports, the check of the index, the model card."""
