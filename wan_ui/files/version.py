"""Whether a file is still the one that was read, told without reading it again."""

import os


def version(status: os.stat_result) -> tuple[int, int, int, int]:
    """Of a file's status. Two files of one size may be written within one tick of the clock, and one be given the
    other's name: then its number on the disk, or the time of that renaming, is another."""
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
