"""Several runs side by side: tables, figures, a page."""
