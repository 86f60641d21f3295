"""How many engines a load needs: work measured on a real engine (`measure.py`), replayed by the real scheduler on a
simulated clock (`simulation.py`), compared with a real gateway (`validate.py`), and extrapolated (`__main__.py`)."""
