"""Room for sweeps over loss weights and margins; nothing is in here yet."""
