"""`python -m tlstm.memory_cells`."""

import sys

from tlstm.memory_cells.command import main

sys.exit(main())
