"""What is done with a finished clip: frames between its frames, a larger picture, loops, joins, other files.

It runs in the worker. change.py goes through the clip; between.py and upscale.py choose what the frames are made by.
"""
