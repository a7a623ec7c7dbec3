"""`python -m tlstm.bench`."""

import sys

from tlstm.bench.command import main
from tlstm.utils import run_main

sys.exit(run_main(main))
