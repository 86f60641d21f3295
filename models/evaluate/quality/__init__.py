"""The quality of an aligner in one table: rows, results that are kept, and the page that shows them."""
