"""Measurements of lns_sim against the calls and projects it is compared with, in the same run."""
