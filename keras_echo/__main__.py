"""`python -m keras_echo` is the command `keras-echo`."""

import sys

from keras_echo.cli import main

sys.exit(main())
