"""Training of streaming models in PyTorch."""
