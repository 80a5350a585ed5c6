"""`python -m converters SOURCE OUTPUT`."""

import sys

from converters.command import main

sys.exit(main())
