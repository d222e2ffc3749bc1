"""An event that was sent is worked on, whatever becomes of the stream through which its page gets the answers.

A page breaks its stream off when it has heard that no answer is under way; another event may be on its way by then,
such as a press that waited for that very answer. Gradio 6.31 takes a stream that is broken off for a page that is gone,
and drops what this page has in the queue: the press would be lost without a word. A page that is gone costs no more
than its last events.
"""

from gradio.queueing import Queue
from gradio.utils import LRUCache


class Messages(LRUCache):
    """session -> what it has not been told yet. dropped: the last that was deleted."""

    dropped: tuple = ("", None)

    def __delitem__(self, session: str) -> None:
        self.dropped = session, self[session]
        super().__delitem__(session)


def keep_events(queue: Queue) -> None:
    """To be called before anything is in it."""
    messages, clean = Messages(queue.pending_messages_per_session.max_size), queue.clean_events

    async def clean_events(*, session_hash: str | None = None, event_id: str | None = None) -> None:
        """Of a page: nothing, and what it was to be told, which Gradio has just deleted, is there again."""
        if event_id is not None:
            return await clean(event_id=event_id)
        (session, untold), messages.dropped = messages.dropped, ("", None)
        if session == session_hash and queue.pending_event_ids_session.get(session):
            messages[session] = untold

    queue.pending_messages_per_session = messages
    queue.clean_events = clean_events  # type: ignore[method-assign]
