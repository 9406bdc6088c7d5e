"""python -m daemon"""

from daemon import guard
from daemon.cli import main

if __name__ == "__main__":
    guard.settle()

    main()
