"""Pages, plots and tables, made from the records of a run alone."""
