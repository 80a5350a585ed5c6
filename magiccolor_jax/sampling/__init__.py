"""From cases to coloured pictures."""
