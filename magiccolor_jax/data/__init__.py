"""Host side: cases, pictures, batches (NumPy)."""
