"""Accuracy of artifacts on labelled videos."""
