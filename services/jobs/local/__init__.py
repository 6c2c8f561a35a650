"""The queue on one machine: the programs that `up` starts, keeps alive and ends."""
