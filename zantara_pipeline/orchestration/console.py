"""What a run says in a terminal while it works: one line a step, warnings, and nothing else."""

import logging
from collections.abc import Callable

import dagster as dg

_KINDS = {"STEP_START": "start", "STEP_SUCCESS": "done", "STEP_FAILURE": "failed"}


class StepLines(logging.Handler):
    """Turns Dagster's step events into calls of `say(kind, text)`; kind is start, done, failed or note."""

    def __init__(self, say: Callable[[str, str], None]) -> None:
        super().__init__(logging.DEBUG)  # Dagster logs its step events at this level
        self.say = say

    def emit(self, record: logging.LogRecord) -> None:
        event = getattr(record, "dagster_event", None)
        if event is None:
            meta = getattr(record, "dagster_meta", None)
            if record.levelno >= logging.WARNING and isinstance(meta, dict):
                self.say("note", str(meta.get("orig_message", "")))
            return
        kind = _KINDS.get(str(event.event_type_value))
        if kind:
            self.say(kind, event.step_key or "")


def quiet_logger(say: Callable[[str, str], None] | None) -> dg.LoggerDefinition:
    """The job's console logger; without `say` it prints warnings as plain lines."""

    def make(_: dg.InitLoggerContext) -> logging.Logger:
        logger = logging.Logger("zantara", level=logging.DEBUG)
        handler: logging.Handler = StepLines(say) if say else logging.StreamHandler()
        if not say:
            handler.setLevel(logging.WARNING)
        logger.addHandler(handler)
        return logger

    return dg.LoggerDefinition(make)
