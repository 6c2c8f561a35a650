"""The network: one CNN with its embedding layer, the heads of training, and the weights they start from."""
