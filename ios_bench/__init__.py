"""Benchmarks on iPhones; empty until the harness lands."""
