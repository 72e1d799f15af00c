"""Labelled videos: a generator of motions, folders and lists of files."""
