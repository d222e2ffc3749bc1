"""Python imports this at its start where the folder is in PYTHONPATH: what the process asks of the network is written
into the file that TEST_ASKED names, a line each: names that are looked up, and addresses beyond this machine."""

import os
import sys

HERE = ("", "localhost", "127.0.0.1", "::1", "0.0.0.0", "::", "None")
EVENTS = ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.connect", "socket.sendto")


def listen(event, args):
    if event not in EVENTS:
        return
    # connect and sendto have an address, which of a socket in a folder is that folder's; the others a name.
    asked = args[1] if event in EVENTS[3:] else args[0]
    if isinstance(asked, tuple):
        asked = asked[0]
    elif event in EVENTS[3:]:
        return
    asked = asked.decode() if isinstance(asked, bytes) else str(asked)
    if asked not in HERE:
        with open(os.environ["TEST_ASKED"], "a") as file:
            file.write(f"{os.getpid()} {event} {asked}\n")


if "TEST_ASKED" in os.environ:
    sys.addaudithook(listen)
