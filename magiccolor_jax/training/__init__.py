"""Two-stage training: what is trained, the optimiser, the step, the loop."""
