"""Training losses, each [B]; `objective.py` weighs and names them."""
