"""Objectives taught by example sentences: the examples, what is learned from them, and where it is kept.

`examples.py` reads an operator's file, `insertion.py` sets its sentences into neutral answers (`neutral.py`), `rows.py`
has the serving engine read them, `fit.py` learns one linear head, `lesson.py` is the whole of it, and `store.py` keeps
the heads of a policies file with their versions. `in_force.py` is all that the gateway needs.
"""
