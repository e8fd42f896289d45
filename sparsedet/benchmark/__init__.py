"""Detectors timed side by side: models, engines, stages, and what the machine could do."""
