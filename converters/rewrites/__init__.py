"""Rewrites of captured graphs; one file per rewrite."""
