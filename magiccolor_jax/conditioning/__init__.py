"""From a batch and the encoders to what the denoiser is told."""
