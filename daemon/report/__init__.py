"""Reports: self-contained HTML files that open with no network."""
