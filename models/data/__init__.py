"""Data of training and evaluation: public sets, generated pairs, labels."""
