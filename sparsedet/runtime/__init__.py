"""An exported detector, run without detectron2 and torch."""
