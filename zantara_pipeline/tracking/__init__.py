"""From landed lines to validated events: the plan and what is compiled from it, reading, verdicts, quarantine, the lake."""
