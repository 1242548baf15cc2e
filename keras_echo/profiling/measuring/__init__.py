"""From the events of a trace to a `StepBreakdown`."""
