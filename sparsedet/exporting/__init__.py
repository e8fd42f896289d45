"""From a detector in PyTorch to a file that runs without it, and to a faster copy in PyTorch."""
