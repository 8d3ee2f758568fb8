"""Reports as pages, tables, plots and JUnit files."""
