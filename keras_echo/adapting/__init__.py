"""From what a step costs to the echoing factor."""
