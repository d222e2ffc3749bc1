"""More machines, on Ray: the other machines' workers, and how a job gets there and its clip back.

The page's table of jobs stays the only truth; Ray holds none of it. The page's process never imports Ray: a child of it
(wan_ui.cluster.dispatcher) does, so that whatever ends there costs the remote jobs and not the page.
"""
