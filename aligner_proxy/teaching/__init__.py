"""Teaching of objectives from example sentences: the examples, the fit of heads, and the store of heads.

`examples.py` reads an operator's file. `insertion.py` inserts its sentences into neutral answers (`neutral.py`), the
serving engine reads these (`rows.py`), and `fit.py` fits one linear head to the rows; `teach.py` runs all of it.
`store.py` stores the heads of a policies file with their versions. The gateway needs only `active_heads.py`.
"""
