"""Strangers' pictures, videos and sound <-> arrays; everything that ffmpeg does."""
