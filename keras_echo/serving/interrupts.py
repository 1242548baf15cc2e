"""Whether Ctrl-C was pressed, for a thread that isn't the main one.

On TensorFlow, the main thread waits for a batch inside of C++, where Python can't raise
KeyboardInterrupt, and a thread of `tf.data` waits for the same batch in Python. When that one
raises anything, the main thread comes back. It brings a RuntimeError whose text says that a
KeyboardInterrupt came: C++ makes one of the two.
"""

from __future__ import annotations

import signal
import socket
import threading


class Interrupts:
    """Hears of Ctrl-C where Python notes it at once: in the file of `signal.set_wakeup_fd`.

    The process has one such file. If it belongs to somebody else, such as asyncio, it is left to
    them, and nothing is heard.
    """

    def __init__(self) -> None:
        self._pair: tuple[socket.socket, socket.socket] | None = None

    def listen(self) -> None:
        """From now on, hears of Ctrl-C; to be called on the main thread, on others it does nothing.

        What came before is forgotten.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        if self._pair is None:
            self._pair = socket.socketpair()
            for end in self._pair:
                end.setblocking(False)
        self._received()
        before = signal.set_wakeup_fd(self._pair[1].fileno(), warn_on_full_buffer=False)
        if before not in (-1, self._pair[1].fileno()):
            signal.set_wakeup_fd(before)

    def stop(self) -> None:
        """Gives the file back; on other threads than the main one it does nothing."""
        if self._pair is None or threading.current_thread() is not threading.main_thread():
            return
        before = signal.set_wakeup_fd(-1)
        if before != self._pair[1].fileno():
            signal.set_wakeup_fd(before)

    def heard(self) -> bool:
        """Whether the main thread is to raise KeyboardInterrupt, and can't; told once."""
        if threading.current_thread() is threading.main_thread():
            return False
        raises = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        return signal.SIGINT in self._received() and raises

    def _received(self) -> bytes:
        """The numbers of the signals that came since this was asked for last."""
        if self._pair is None:
            return b""
        try:
            return self._pair[0].recv(4096)
        except BlockingIOError:
            return b""


INTERRUPTS = Interrupts()
