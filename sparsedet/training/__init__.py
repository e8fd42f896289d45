"""detectron2's trainer, on CPUs too, and a compact detector that learns from its dense twin."""
