"""Wan UI: Wan2.2 video in the browser."""

__version__ = "0.1.0"
