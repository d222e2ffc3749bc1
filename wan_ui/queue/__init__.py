"""A request's way: checked, stored in line, run in the worker, its clip kept within the quota."""
