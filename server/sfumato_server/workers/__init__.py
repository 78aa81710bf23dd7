"""Tasks that know nothing of each other, done one after another or by many processes; the answers are the same."""

from sfumato_server.workers.tasks import ALONE, Answer, Task, Where, run_tasks

__all__ = ["ALONE", "Answer", "Task", "Where", "run_tasks"]
