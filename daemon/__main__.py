"""python -m daemon"""

from daemon import guard

if __name__ == "__main__":
    guard.settle()
    from daemon.cli import main

    main()
