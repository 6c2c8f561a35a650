"""The training loop and what it is handed: configuration, context, checkpoints."""
