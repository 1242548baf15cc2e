"""What the demo and the examples train on."""
