"""From raw pictures to masks, line art and training records."""
