"""Jobs for test_engine.py: what a child process does when told to misbehave."""

import os
import re
import signal
import time


def run(job, should_stop):
    return globals()[job["do"]](job, should_stop)


def echo(job, should_stop):
    return {"said": job["text"], "pid": os.getpid(), "threads": job["threads"]}


def wait_for_stop(job, should_stop):
    from pipeline.errors import StopRequested

    open(job["started"], "w").close()
    while not should_stop():
        time.sleep(0.005)
    raise StopRequested("between two steps")


def hang(job, should_stop):
    open(job["started"], "w").close()
    while True:
        time.sleep(1)


def deaf(job, should_stop):
    """Holds the interpreter's lock: no other thread of this process runs any more."""
    open(job["started"], "w").close()
    re.match("(a+)+b", "a" * 60)


def die(job, should_stop):
    os.kill(os.getpid(), signal.SIGKILL)


def eat(job, should_stop):
    return {"bytes": len(bytearray(4 << 30))}


def use(job, should_stop):
    return {"bytes": sum(len(piece) for piece in [b"x" * (1 << 20) for _ in range(200)])}


def lose_the_disk(job, should_stop):
    raise OSError(5, "Input/output error", "/mnt/x")


def bad_data(job, should_stop):
    from pipeline.errors import BadFrame

    raise BadFrame("N1.fits", "no usable pixel")


def bug(job, should_stop):
    return {}["key"]


def environment(job, should_stop):
    return {"env": dict(os.environ), "pgid": os.getpgid(0)}
