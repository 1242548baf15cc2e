"""From uses to whoever asks for them."""
