"""Sweeps over loss weights and margins, with Ray Tune."""
