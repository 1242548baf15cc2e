"""The demo: real images behind a slow server, the same training without and with echoing."""
