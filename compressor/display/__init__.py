"""What people look at: pages, plots and marked texts."""
