"""What it costs: one module a question. `make bench` asks all, `python -m bench night` one.

Each has `measure(**options) -> dict` and `tables(answer)`; SMALL are the options of its smallest form. Every
time is also given as a ratio to the floor of the same run: the same files read and hashed, each pixel touched
once, the same products written, and nothing else (`floor`).
"""
