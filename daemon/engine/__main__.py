"""Entry of the engine process; started by the daemon only."""

import sys

from daemon.engine.process import serve

if __name__ == "__main__":
    sys.exit(serve(int(sys.argv[1]), compiled=sys.argv[2:] == ["compiled"]))
