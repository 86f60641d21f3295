"""How many engines a load needs, by simulation.

`measure.py` measures the work on a real engine. `simulation.py` replays it with the real scheduler on a simulated
clock. `__main__.py` compares the simulation with a real gateway and extrapolates.
"""
