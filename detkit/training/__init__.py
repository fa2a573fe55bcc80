"""The training loop and its parts: optimiser, schedule, validation, checkpoints, log."""
