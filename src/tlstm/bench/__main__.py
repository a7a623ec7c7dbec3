"""`python -m tlstm.bench`."""

import sys

from tlstm.bench.command import main

sys.exit(main())
