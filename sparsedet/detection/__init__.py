"""Where the method meets detectron2: what stays fixed, what answers, how to load and save."""
