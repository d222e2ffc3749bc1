"""Examining: an engine stage by stage against a reference, clips against each other, full-size weights of nothing.

Below the queue, whose worker lets the loaded engine be examined between two jobs. What drives the whole app is in
wan_ui/reports.
"""
