"""Errors with an audience.

A `UserError` is written for the person at the page or the terminal: it names the field or file,
what is wrong and what to do. Anything else is a bug and keeps its traceback in the log.
"""


class UserError(Exception):
    """Bad input or a fixable state of the machine. `field` is the control it belongs to, if any, which the message then
    names first; `words` is the message for a place where that is plain. `memory`: whose was not enough, GPU or machine;
    "" of all other errors."""

    def __init__(self, message: str, *, field: str = "", memory: str = ""):
        super().__init__(message)
        self.field, self.words, self.memory = field, message.removeprefix(f"{field}: "), memory


class Cancelled(Exception):
    """Raised inside the worker by `report` once the user has cancelled the job."""


class WorkerDied(UserError):
    """The worker process ended in the middle of a job (signal, exit code or deadline)."""


class NodeLost(WorkerDied):
    """A worker on another machine was lost in the middle of a job: its process, its machine or the way there. That says
    nothing of the job, which can be run elsewhere."""
