"""The zoo: video models built in PyTorch, an explicit registry, and importers of published weights.

`mvtool.zoo.registry` imports no framework; everything else needs PyTorch.
"""
