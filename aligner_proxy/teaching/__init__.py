"""Objectives taught by example sentences: the examples, what is learned from them, and the store of heads.

`examples.py` reads an operator's file. `insertion.py` puts its sentences into neutral answers (`neutral.py`), the
serving engine reads these (`rows.py`), and `fit.py` learns one linear head from the rows; `teach.py` runs all of it.
`store.py` keeps the heads of a policies file with their versions. The gateway needs `active_heads.py` alone.
"""
