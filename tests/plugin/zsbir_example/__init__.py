"""Losses and a backbone for zsbir, as another package offers them: one file each."""
