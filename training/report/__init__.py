"""A page about a run: one self-contained HTML file made from the files of the run's folder."""
