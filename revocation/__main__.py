"""`python -m revocation` is the same as `revocation`."""

import sys

from revocation.cli import main

sys.exit(main())
