"""How good coloured pages are: metrics, baselines, reports."""
